"""From images and prompts to generated text.

Shape letters: I images, B rows, L longest prompt, T new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from qvft.data.collate import Collator, pad_rows
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.errors import RecipeError
from qvft.models.blip2 import embed_rows, encode_images


class PromptBatches:
    """Rows in batches of prompts without targets, images decoded in workers.

    Args:
        rows: what is asked.
        images: the sample whose image each row is shown, usually its own.
        collator: decodes images and holds the template.
        batch_size: rows a batch.
        workers: decoding processes.

    Rows of one image stand next to each other, so that a batch encodes it once.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        images: Sequence[Sample],
        collator: Collator,
        *,
        batch_size: int,
        workers: int,
    ) -> None:
        self.rows, self.images, self.collator = rows, images, collator
        order = sorted(range(len(rows)), key=lambda index: (rows[index].kind, images[index].id))
        self.batches = [
            chunk
            for kind in ("caption", "question")
            for chunk in _chunks([i for i in order if rows[i].kind == kind], batch_size)
        ]
        self.workers = workers

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loader = DataLoader(
            self.batches,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=self._collate,
            num_workers=min(self.workers, len(self.batches)),
        )
        return iter(loader)

    def _collate(self, indices: Sequence[int]) -> dict[str, Any]:
        """pixel_values (I, 3, height, width), image_index (B,), left-padded input_ids and
        attention_mask (B, L), `rows` the row numbers, `kind`."""
        seen: dict[str, int] = {}
        sources = []
        for index in indices:
            if self.images[index].id not in seen:
                seen[self.images[index].id] = len(sources)
                sources.append(self.images[index].image)
        template = self.collator.template
        prompts = [
            template.encode(self.rows[index].kind, question=self.rows[index].question).ids
            for index in indices
        ]
        return {
            "pixel_values": self.collator.pixels(sources),
            "image_index": torch.tensor([seen[self.images[index].id] for index in indices]),
            **pad_rows(prompts, template.tokenizer.pad_token_id, side="left"),
            "rows": list(indices),
            "kind": self.rows[indices[0]].kind,
        }


@torch.no_grad()
def generate_texts(
    model: PreTrainedModel,
    collator: Collator,
    batch: Mapping[str, Any],
    generation: Mapping[str, Any],
) -> list[str]:
    """One text for each row of a batch of prompts.

    Args:
        model: with its trained weights in place, in evaluation mode.
        batch: as `PromptBatches` yields it.
        generation: fields of `transformers.GenerationConfig`. Lengths count new tokens only:
            the image's tokens are not among them.

    Returns:
        Texts up to the stop token, without the prompt, white space stripped; B of them.

    Raises:
        RecipeError: transformers refuses a value or combination of the generation settings.
    """
    place = model.query_tokens.device
    inputs = {
        key: batch[key].to(place)
        for key in ("pixel_values", "image_index", "input_ids", "attention_mask")
    }
    prefix = encode_images(model, inputs["pixel_values"])
    embeds = embed_rows(
        model, inputs["input_ids"], prefix=prefix, image_index=inputs["image_index"]
    )
    template = collator.template
    try:
        new_ids = model.language_model.generate(
            inputs_embeds=embeds,
            attention_mask=inputs["attention_mask"],
            eos_token_id=[template.stop_id, template.tokenizer.eos_token_id],
            pad_token_id=template.tokenizer.pad_token_id,
            **generation,
        )
    except (ArithmeticError, TypeError, ValueError) as error:
        # Values and combinations of GenerationConfig are checked by transformers as it generates.
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(
            f"transformers refuses {dict(generation)}: {reason}", where="decoding"
        ) from error
    return [template.decode(row) for row in new_ids.tolist()]


def blind_images(samples: Sequence[Sample], *, seed: int) -> dict[str, Sample]:
    """For each sample another one, whose image is shown instead: a random cycle through all.

    With a single sample it is its own, and nothing can be said about blindness.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples), generator=generator).tolist()
    return {
        samples[current].id: samples[following]
        for current, following in zip(order, order[1:] + order[:1], strict=True)
    }


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
