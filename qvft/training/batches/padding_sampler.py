"""Pads an epoch with rows without loss until it divides evenly among processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

from qvft.data.rows import FILLER


class PaddedSampler(Sampler[int]):
    """Appends `FILLER` to a sampler's order until its length is a multiple of the global batch
    size, so that N processes with batch size B see what one with batch size N x B sees.

    Accelerate alone would repeat rows from the start of the epoch.

    Args:
        order: a sized sampler with `set_epoch`.
        multiple: batch size times number of processes.
    """

    def __init__(self, order: Any, *, multiple: int) -> None:
        self._order, self._multiple = order, multiple

    def set_epoch(self, epoch: int) -> None:
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._order) // self._multiple) * self._multiple

    def __iter__(self) -> Iterator[int]:
        yield from self._order
        yield from [FILLER] * (len(self) - len(self._order))
