"""Which augmented view of an image an epoch uses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Sampler

from qvft.data.rows import FILLER


@dataclass(frozen=True)
class ViewDraw:
    """Draws an image's augmented view for each epoch.

    In every `count` + 1 epochs an image is used once without augmentation and once in each of its
    views, in a random order per image. The draw depends only on seed, epoch and image.

    Attributes:
        count: augmented views per image.
        seed: seed of the order.
    """

    count: int
    seed: int

    def __call__(self, epoch: int, image: str) -> int:
        """The view of an image, by its sample's id, in an epoch; 0 is the unaugmented image."""
        cycle, place = divmod(epoch, self.count + 1)

        def chance(view: int) -> bytes:
            return hashlib.sha256(f"{self.seed} {cycle} {view} {image}".encode()).digest()

        return sorted(range(self.count + 1), key=chance)[place]


class EpochNumbers(Sampler[Any]):
    """A sampler's rows numbered through all epochs: epoch * rows + row.

    DataLoader workers outlive an epoch and receive numbers only; `RowDataset` reads row and epoch
    from them.

    Args:
        rows: sampler of rows or of lists of rows, with `set_epoch`.
        count: number of rows.
    """

    def __init__(self, rows: Any, count: int) -> None:
        self._rows, self._count, self._epoch = rows, count, 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the next epoch."""
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
