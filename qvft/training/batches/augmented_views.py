"""Which view of an image an epoch shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Sampler

from qvft.data.rows import FILLER


@dataclass(frozen=True)
class ViewDraw:
    """Draws an image's view for each epoch.

    In every `count` + 1 epochs an image is seen once as it is and once in each of its views, in a
    random order of its own. The draw follows from seed, epoch and image alone.

    Attributes:
        count: augmented views of an image.
        seed: of the order.
    """

    count: int
    seed: int

    def __call__(self, epoch: int, image: str) -> int:
        """The view of an image, by its sample's id, in an epoch; 0 is the image as it is."""
        cycle, place = divmod(epoch, self.count + 1)

        def chance(view: int) -> bytes:
            return hashlib.sha256(f"{self.seed} {cycle} {view} {image}".encode()).digest()

        return sorted(range(self.count + 1), key=chance)[place]


class EpochNumbers(Sampler[Any]):
    """The rows of another sampler numbered through all epochs, epoch * rows + row.

    Workers of a data loader outlive an epoch and are told numbers only; `RowDataset` reads both
    row and epoch from these.

    Args:
        rows: gives rows, or lists of them, and takes `set_epoch`.
        count: of all rows.
    """

    def __init__(self, rows: Any, count: int) -> None:
        self._rows, self._count, self._epoch = rows, count, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that comes next."""
        self._epoch = epoch
        self._rows.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        first = self._epoch * self._count
        for item in self._rows:
            if isinstance(item, list):
                yield [first + row for row in item]
            else:
                yield item if item == FILLER else first + item
