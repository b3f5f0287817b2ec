"""A batch of rows for which texts are sampled, with the images that samples share.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from qvft.data.rows import FILLER, Row
from qvft.training.rewards.collate import LearntText

NumberedRow = tuple[int, Row]


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
