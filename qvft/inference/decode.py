"""Generates text from encoded images and prompts.

Shape letters: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.data.collate import WIDTH_STEP, Collator, pad_rows
from qvft.data.prompt import Kind, PromptTemplate
from qvft.errors import FailedError
from qvft.inference.encoding import Encoded
from qvft.models.finite_outputs import finite_logits
from qvft.models.forward_stages import generate
from qvft.recipe.refused_settings import refusal

MOST_WAITING = 8
"""Maximum number of waiting rows, in batches."""


@dataclass(frozen=True)
class Prompted:
    """A row ready for generation.

    Attributes:
        kind: `caption` or `question`.
        ids: prompt tokens, including image tokens.
        shared: number of its tokens in the image's KV cache prefix, never all; 0 without one.
    """

    number: int
    kind: Kind
    ids: tuple[int, ...]
    image: Encoded
    prompt: str
    shared: int = 0

    @property
    def width(self) -> int:
        """Number of tokens, rounded up to `WIDTH_STEP`."""
        return -(-len(self.ids) // WIDTH_STEP) * WIDTH_STEP

    @property
    def shape(self) -> tuple[Kind, int, bool]:
        """Batching key: kind, width, and whether there is a KV cache prefix."""
        return self.kind, self.width, self.shared > 0


class Waiting:
    """Groups rows of equal shape into batches."""

    def __init__(self, *, batch_size: int) -> None:
        self.batch_size = batch_size
        self._groups: dict[tuple[Kind, int, bool], list[Prompted]] = {}

    def add(self, row: Prompted) -> list[Prompted]:
        """Adds a row; returns a batch that is full, else, when more than `MOST_WAITING` batches of
        rows are waiting, the oldest group as it is, else an empty one.
        """
        group = self._groups.setdefault(row.shape, [])
        group.append(row)
        if len(group) == self.batch_size:
            return self._groups.pop(row.shape)
        if sum(map(len, self._groups.values())) >= MOST_WAITING * self.batch_size:
            return self._groups.pop(next(iter(self._groups)))
        return []

    def rest(self) -> list[list[Prompted]]:
        """Batches of all waiting rows."""
        groups, self._groups = self._groups, {}
        return list(groups.values())


@torch.no_grad()
def generate_ids(
    model: PreTrainedModel,
    collator: Collator,
    batch: Sequence[Prompted],
    settings: Mapping[str, Any],
) -> Tensor:
    """New tokens (B * num_return_sequences, T) for the rows of a batch, see `generate_texts`.

    Raises:
        FailedError: a logit is NaN or infinite.
    """
    place, template = model.device, collator.template
    tokenizer = template.tokenizer
    shared = min(row.shared for row in batch)
    padded = _padded(batch, template, front=shared or int(template.image_token_id is not None))
    rows = {**padded, **collator.read([row.prompt for row in batch])}
    further: dict[str, Any] = {"tokenizer": tokenizer} if "stop_strings" in settings else {}
    if shared:
        further |= {"prefixes": [row.image.prefix for row in batch], "prefix_tokens": shared}
    with finite_logits(model):
        return generate(
            model,
            {key: value.to(place) for key, value in rows.items()},
            images=torch.stack([row.image.states for row in batch]),
            eos_token_id=[template.stop_id, tokenizer.eos_token_id],
            pad_token_id=template.pad_id,
            **settings,
            **further,
        )


@torch.no_grad()
def generate_texts(
    model: PreTrainedModel,
    collator: Collator,
    batch: Sequence[Prompted],
    generation: Mapping[str, Any],
) -> list[tuple[str, ...]]:
    """Generates texts for the rows of a batch.

    Args:
        model: in evaluation mode.
        batch: B rows of one shape.
        generation: fields of `transformers.GenerationConfig`. Lengths count new tokens only,
            without image tokens.

    Returns:
        B tuples of `num_return_sequences` texts (one unless set) up to the stop token, without the
        prompt, white space stripped.

    Raises:
        RecipeError: transformers refuses a value or combination of the generation settings.
        FailedError: as `generate_ids`.
    """
    try:
        new_ids = generate_ids(model, collator, batch, generation)
    except FailedError:
        raise
    except Exception as error:
        # transformers checks GenerationConfig only during generation, and some values break it.
        few = {"max_new_tokens": 1, "do_sample": False}
        attempt = lambda some: generate_ids(model, collator, batch, {**few, **some})  # noqa: E731
        found = refusal(error, generation, attempt, key=lambda name: f"decoding: {name}")
        if found is None:
            raise
        raise found from error
    texts = [collator.template.decode(row) for row in new_ids.tolist()]
    each = len(texts) // len(batch)
    return [tuple(texts[start : start + each]) for start in range(0, len(texts), each)]


def _padded(
    batch: Sequence[Prompted], template: PromptTemplate, *, front: int
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of a batch, with padding after the first `front` tokens of
    each row.

    Rows with image tokens begin with some of them even without a shared prefix: in transformers
    5.23 a repetition penalty skips as many new tokens as there is padding on the left. Prompts that
    an encoder reads, whose positions are distances, are padded on the right.
    """
    if template.start_id is not None:
        return pad_rows([row.ids for row in batch], template.pad_id, width=batch[0].width)
    first = torch.tensor([row.ids[:front] for row in batch], dtype=torch.long)
    rest = pad_rows(
        [row.ids[front:] for row in batch],
        template.pad_id,
        side="left",
        width=batch[0].width - front,
    )
    return {
        "input_ids": torch.cat([first, rest["input_ids"]], dim=1),
        "attention_mask": torch.cat([torch.ones_like(first), rest["attention_mask"]], dim=1),
    }
