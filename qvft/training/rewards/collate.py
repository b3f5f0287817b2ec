"""Batches of a reward phase: rows for which texts are sampled, and the texts to learn from.

Shape letters: I images, B texts, L longest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from qvft.data.collate import IGNORED, Collator
from qvft.data.prompt import TokenRow
from qvft.data.rows import FILLER, Row

NumberedRow = tuple[int, Row]


@dataclass(frozen=True)
class LearntText:
    """A text of a reward batch: a sample with its advantage, or a reference.

    Attributes:
        number: row number in the dataset; `FILLER` has no loss.
        tokens: prompt and text as token ids; a sample is never tokenized again.
        advantage: None of a reference.
        old, ref: log-probability of each of its tokens when it was sampled, and at the phase's
            start; None where nothing asks for it.
    """

    number: int
    row: Row
    tokens: TokenRow
    advantage: float | None = None
    old: Tensor | None = None
    ref: Tensor | None = None


@dataclass(frozen=True)
class GivenBatch:
    """A batch of rows, as the phase's collator makes it, and the rows."""

    tensors: Mapping[str, Tensor]
    rows: Sequence[NumberedRow]

    @property
    def asked(self) -> list[NumberedRow]:
        """The rows without those that only fill the batch up."""
        return [(number, row) for number, row in self.rows if number != FILLER]

    def image_of(self, row: Row) -> int:
        """Index of a row's image in the batch."""
        return self._images[row.sample.id, row.view]

    @cached_property
    def _images(self) -> dict[tuple[str, int], int]:
        index = self.tensors["image_index"].tolist()
        return {
            (row.sample.id, row.view): image
            for image, (_, row) in zip(index, self.rows, strict=True)
        }

    def seen(self, texts: Sequence[LearntText]) -> dict[str, Tensor]:
        """The images of these texts, each once, in order of first use."""
        used = list(dict.fromkeys(self.image_of(text.row) for text in texts))
        names = [name for name in ("pixel_values", "features") if name in self.tensors]
        return {name: self.tensors[name][used] for name in names}


@dataclass(frozen=True)
class SampleCollator:
    """Collates texts of samples and references.

    Returns of a call: what `Collator` returns, without pixels or features if `seen` has them; and
        is_sample (B,) bool, advantages (B,) float32, texts and tokens () long: numbers of samples
        and of their tokens; old_logps, ref_logps (B, L) float32 where texts have them.
    """

    collator: Collator

    def __call__(
        self, texts: Sequence[LearntText], seen: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """A batch of texts.

        Args:
            seen: images of the batch, one per different (sample, view) of the texts, in order.
        """
        collator, template = self.collator, self.collator.template
        images: dict[tuple[str, int], int] = {}
        for text in texts:
            images.setdefault((text.row.sample.id, text.row.view), len(images))
        if seen is None:
            sources = {(text.row.sample.id, text.row.view): text.row.sample.image for text in texts}
            seen = collator.seen(list(sources.values()), [view for _, view in sources])
        index = [images[text.row.sample.id, text.row.view] for text in texts]
        prompts = [template.prompt_text(*text.row.asked) for text in texts]
        batch = collator.token_batch([text.tokens for text in texts], index, prompts)
        spans = [template.target_span(text.tokens) for text in texts]
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for place, (text, span) in enumerate(zip(texts, spans, strict=True)):
            if text.number != FILLER:
                labels[place, span] = batch["input_ids"][place, span]
        samples = [text for text in texts if text.advantage is not None]
        lengths = [len(text.tokens.ids) - text.tokens.target_start for text in samples]
        return {
            **seen,
            "image_index": torch.tensor(index),
            **batch,
            "labels": labels,
            "row_index": torch.tensor([text.number for text in texts]),
            "is_sample": torch.tensor([text.advantage is not None for text in texts]),
            "advantages": torch.tensor([text.advantage or 0.0 for text in texts]),
            "texts": torch.tensor(len(samples)),
            "tokens": torch.tensor(sum(lengths)),
            **self._logps("old_logps", [text.old for text in texts], spans, labels),
            **self._logps("ref_logps", [text.ref for text in texts], spans, labels),
        }

    @staticmethod
    def _logps(
        name: str, values: Sequence[Tensor | None], spans: Sequence[slice], labels: Tensor
    ) -> dict[str, Tensor]:
        if all(value is None for value in values):
            return {}
        found = torch.zeros(labels.shape)
        for place, (value, span) in enumerate(zip(values, spans, strict=True)):
            if value is not None:
                found[place, span] = value.to(found)
        return {name: found}
