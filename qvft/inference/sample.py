"""Sampling several texts per prompt from encoded images, reproducible per row.

Shape letters: I images, B rows, K samples per row, T new tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.inference.decode import Prompted, generate_ids
from qvft.inference.encoding import Encoded
from qvft.inference.predict import common_prefix, prompt_ids
from qvft.inference.sampled import Sampled
from qvft.models.forward_stages import continues_prefix, decode_prefix


class ChosenByUniform(LogitsProcessor):
    """Chooses each row's next token by the inverse of its cumulative distribution at a given number
    in [0, 1), and leaves it alone: greedy decoding then samples.

    So a row's sample depends on no other row, on no batch size and on no global random state.

    Args:
        uniforms: (B, T) float64, one number per row and new token.
        temperature: divides the logits.
    """

    def __init__(self, uniforms: Tensor, temperature: float) -> None:
        self.uniforms, self.temperature, self.step = uniforms, temperature, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        total = torch.softmax(scores.double() / self.temperature, dim=-1).cumsum(dim=-1)
        # Right: a token of probability 0 is never chosen.
        wanted = self.uniforms[:, self.step, None] * total[:, -1:]
        chosen = torch.searchsorted(total, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


def uniforms_of(seed: Sequence[int | str], count: int, length: int) -> Tensor:
    """(count, length) float64 numbers in [0, 1) that depend on `seed` alone."""
    digest = hashlib.sha256(" ".join(map(str, seed)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(count, length, generator=generator, dtype=torch.float64)


@torch.no_grad()
def sample_rows(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[tuple[int, Row]],
    *,
    states: Tensor,
    image_index: Sequence[int],
    count: int,
    max_new_tokens: Mapping[str, int],
    temperature: float,
    seed: Sequence[int | str],
    prompts_at_once: int,
) -> list[list[Sampled]]:
    """Samples `count` texts per row, from the model's distribution at this temperature, without
    `never_sampled`.

    The part of the prompt that all rows share goes through the decoder once per image, if the
    family shares a prefix.

    Args:
        model: in evaluation mode.
        rows: B numbered rows.
        states: (I, ...) from `forward_stages.encode_features`.
        image_index: image of each row.
        count: samples per row; 0: the greedy text alone.
        max_new_tokens: maximum tokens by kind of row, with the stop token.
        seed: of the samples, with the row's number.
        prompts_at_once: maximum rows of a pass; it changes no sample.

    Returns:
        The K texts of each row.
    """
    found: list[list[Sampled]] = [[] for _ in rows]
    groups: dict[Any, list[Prompted]] = {}
    for one in _prompted(model, collator, rows, states, image_index):
        groups.setdefault(one.shape, []).append(one)
    template = collator.template
    stops = {template.stop_id, template.tokenizer.eos_token_id}
    with plain_generation(model):
        for batch in (
            group[start : start + prompts_at_once]
            for group in groups.values()
            for start in range(0, len(group), prompts_at_once)
        ):
            length = max_new_tokens[batch[0].kind]
            settings: dict[str, Any] = {"max_new_tokens": length, "do_sample": False}
            settings["suppress_tokens"] = list(never_sampled(template)) or None
            if count:
                seeds = [(*seed, rows[one.number][0]) for one in batch]
                drawn = torch.cat([uniforms_of(one, count, length) for one in seeds])
                choice = ChosenByUniform(drawn.to(states.device), temperature)
                settings["logits_processor"] = LogitsProcessorList([choice])
            repeated = [one for one in batch for _ in range(max(1, count))]
            written = generate_ids(model, collator, repeated, settings).tolist()
            for one, new_ids in zip(repeated, written, strict=True):
                ids = until_stop(new_ids, stops)
                text, ends = template.decode(ids), ids[-1] in stops
                found[one.number].append(
                    Sampled(*rows[one.number], one.prompt, one.ids, ids, text, ends)
                )
    return found


def _prompted(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[tuple[int, Row]],
    states: Tensor,
    image_index: Sequence[int],
) -> list[Prompted]:
    """Each row with its image and, if the family shares a prefix, that image's KV cache."""
    template = collator.template
    ids = list(prompt_ids(template, [row for _, row in rows]))
    encoded = [Encoded(state) for state in states]
    head: Sequence[int] = ()
    if continues_prefix(model, {}):
        # At least one token must go through the decoder.
        head = common_prefix(ids)[: min(map(len, ids)) - 1]
        prefixes = decode_prefix(model, states, head)
        encoded = [Encoded(*pair) for pair in zip(states, prefixes, strict=True)]
    return [
        Prompted(
            place,
            row.kind,
            ids[place],
            encoded[image],
            template.prompt_text(*row.asked),
            len(head),
        )
        for place, ((_, row), image) in enumerate(zip(rows, image_index, strict=True))
    ]


def never_sampled(template: PromptTemplate) -> tuple[int, ...]:
    """Tokens that no text may have: `<image>`, which would be replaced by a part of the image."""
    return () if template.image_token_id is None else (template.image_token_id,)


def until_stop(ids: Sequence[int], stops: set[int]) -> tuple[int, ...]:
    """The tokens up to and including the first stop token."""
    end = next((place for place, token in enumerate(ids) if token in stops), len(ids) - 1)
    return tuple(ids[: end + 1])


@contextmanager
def plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Context manager: `generate` has no defaults of the checkpoint, such as a repetition penalty,
    under which samples would not be the model's.
    """
    parts = [part for part in (model, getattr(model, "language_model", None)) if part is not None]
    before = [
        (part, part.generation_config) for part in parts if hasattr(part, "generation_config")
    ]
    try:
        for part, config in before:
            start = getattr(config, "decoder_start_token_id", None)
            part.generation_config = GenerationConfig(decoder_start_token_id=start)
        yield
    finally:
        for part, config in before:
            part.generation_config = config
