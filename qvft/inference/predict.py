"""Batched inference: rows of images and questions to generated texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.errors import ImageError
from qvft.inference.decode import MOST_WAITING, Prompted, Waiting, generate_texts
from qvft.inference.encoding import Encoded, Kept, encoded_images
from qvft.inference.log_probs import Candidate, LogProb, Scoring, ranked, text_log_probs
from qvft.models.forward_stages import continues_prefix
from qvft.progress import counted

HEAD_ROWS = 64
"""Rows used to find the common prefix; a row with another prefix shares less."""


@dataclass(frozen=True)
class Outcome:
    """Result of a row: its number and its texts, or the error of its image.

    `scores` belong to zero-shot classification; `log_probs`, parallel to the texts, `candidates`,
    the most likely first, and `abstained` are there if asked for.
    """

    number: int
    texts: tuple[str, ...] = ()
    error: ImageError | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    log_probs: tuple[LogProb, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    abstained: bool | None = None

    @property
    def probability(self) -> float | None:
        """Probability of the first text: of its tokens, or among the candidates if nothing was
        generated."""
        if self.log_probs:
            return math.exp(self.log_probs[0].sum)
        return self.candidates[0].probability if self.candidates else None


def outcomes(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    images: Sequence[Sample] | None = None,
    *,
    generation: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    workers: int,
    label: str = "predict",
    scoring: Scoring = Scoring(),  # noqa: B008  # frozen
    kept: Kept | None = None,
) -> Iterator[Outcome]:
    """The outcome of every row, as batches finish.

    Images are decoded in workers and encoded once each, in order of first use, and kept until their
    last row is done. Rows of equal shape are batched. The KV cache of an image's prefix is computed
    once if its rows are close together, see `_near_rows`.

    Args:
        images: the sample whose image each row uses; None: its own.
        generation: `GenerationConfig` fields by kind, `caption` and `question`.
        batch_size: images encoded, and rows decoded, together.
        kept: as in `encoding.encoded_images`.
    """
    shown = images if images is not None else [row.sample for row in rows]
    waiting = Waiting(batch_size=batch_size)

    def answered(batch: Sequence[Prompted]) -> list[Outcome]:
        texts: Sequence[tuple[str, ...]] = [()] * len(batch)
        if scoring.generate:
            texts = generate_texts(model, collator, batch, generation[batch[0].kind])
        own = [rows[row.number].candidates if scoring.rank_by else () for row in batch]
        named = texts if scoring.log_probs else [()] * len(batch)
        asked = [(*some, *others) for some, others in zip(named, own, strict=True)]
        values = text_log_probs(model, collator, batch, asked)
        return [
            _outcome(row.number, some, others, found, scoring)
            for row, some, others, found in zip(batch, texts, own, values, strict=True)
        ]

    with counted(label, len(rows)) as count:
        within = batch_size * MOST_WAITING
        shares = all(continues_prefix(model, settings) for settings in generation.values())
        if not (scoring.generate and shares):
            within = 0
        arriving = _prompted(model, collator, rows, shown, batch_size, workers, within, kept)
        for arrival in arriving:
            if isinstance(arrival, Outcome):
                done = [arrival]
            else:
                full = waiting.add(arrival)
                done = answered(full) if full else []
            yield from done
            count.advance(len(done))
        for batch in waiting.rest():
            yield from answered(batch)
            count.advance(len(batch))


def _outcome(
    number: int,
    texts: tuple[str, ...],
    candidates: Sequence[str],
    log_probs: Sequence[LogProb],
    scoring: Scoring,
) -> Outcome:
    """Outcome of a row; `log_probs` are those of its texts, if asked for, and its candidates."""
    own = len(texts) if scoring.log_probs else 0
    order: tuple[Candidate, ...] = ()
    if scoring.rank_by and candidates:
        order = ranked(candidates, log_probs[own:], by=scoring.rank_by)
    found = Outcome(
        number,
        texts or tuple(one.text for one in order[:1]),
        log_probs=tuple(log_probs[:own]),
        candidates=order,
    )
    if scoring.abstain_below is None or found.probability is None:
        return found
    return replace(found, abstained=found.probability < scoring.abstain_below)


def predict_rows(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    images: Sequence[Sample] | None = None,
    **settings: Any,
) -> Iterator[Outcome]:
    """As `outcomes`; raises ImageError at an unusable image."""
    for outcome in outcomes(model, collator, rows, images, **settings):
        if outcome.error is not None:
            raise outcome.error
        yield outcome


def predict_texts(
    model: PreTrainedModel, collator: Collator, rows: Sequence[Row], **settings: Any
) -> list[str]:
    """The text of each row, in order; arguments as `outcomes`; raises as `predict_rows`."""
    texts = [""] * len(rows)
    for outcome in predict_rows(model, collator, rows, **settings):
        texts[outcome.number] = outcome.texts[0]
    return texts


def _prompted(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    shown: Sequence[Sample],
    batch_size: int,
    workers: int,
    within: int,
    kept: Kept | None,
) -> Iterator[Prompted | Outcome]:
    """Each row with its encoded image, in order; an outcome if the image is unusable."""
    last_use = {sample.id: number for number, sample in enumerate(shown)}
    sources = {sample.id: sample.image for sample in shown}  # in order of first use
    near = _near_rows(shown, within)
    head: tuple[int, ...] = ()
    if near:  # image tokens, `</s>`, and the first words that all prompts begin with
        some = rows[:: -(-len(rows) // HEAD_ROWS)]
        head = common_prefix(prompt_ids(collator.template, some))
    encoded = encoded_images(
        model,
        collator,
        list(sources.values()),
        batch_size=batch_size,
        workers=workers,
        head=head,
        shared={number for number, sample in enumerate(sources) if sample in near},
        kept=kept,
    )
    arriving = zip(sources, encoded, strict=True)
    ready: dict[str, Encoded | ImageError] = {}
    asked = zip(rows, shown, prompt_ids(collator.template, rows), strict=True)
    for number, (row, sample, ids) in enumerate(asked):
        while sample.id not in ready:
            ready.update([next(arriving)])
        found = ready.pop(sample.id) if last_use[sample.id] == number else ready[sample.id]
        if isinstance(found, ImageError):
            yield Outcome(number, error=found)
        else:
            prompt = collator.template.prompt_text(*row.asked)
            # At least one token must go through the decoder.
            shared = 0 if found.prefix is None else common_length(head, ids[:-1])
            yield Prompted(number, row.kind, ids, found, prompt, shared)


def _near_rows(shown: Sequence[Sample], within: int) -> set[str]:
    """Images with several rows, the last fewer than `within` rows after the first.

    An image with one row has nothing to share. One whose rows are far apart would keep its KV cache
    (size: see `prefix_cache.keys_values`) in memory for long. So at most `within` images, plus one
    chunk encoded ahead and those of waiting rows, have a prefix in memory.
    """
    last = {sample.id: number for number, sample in enumerate(shown)}
    first = {sample.id: number for number, sample in reversed(list(enumerate(shown)))}
    return {image for image in first if 0 < last[image] - first[image] < within}


def prompt_ids(template: PromptTemplate, rows: Sequence[Row]) -> Iterator[tuple[int, ...]]:
    """Tokens of each row's prompt, image tokens included."""
    texts = ((row.kind, row.question, None, row.prompt) for row in rows)
    return (tokens.ids for tokens in template.encode_all(texts))


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two rows."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def common_prefix(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The tokens that all rows begin with."""
    return reduce(lambda one, other: one[: common_length(one, other)], rows)
