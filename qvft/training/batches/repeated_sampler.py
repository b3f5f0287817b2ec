"""Repeats the rows of each optimizer step, for several updates per generation of samples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import Sampler


class RepeatedSampler(Sampler[int]):
    """Yields windows of a sampler's order several times in a row.

    Args:
        order: a sized sampler with `set_epoch`, whose length is a multiple of `window`.
        window: rows of an optimizer step, over all processes and accumulated batches.
        times: how often each window comes.
    """

    def __init__(self, order: Any, *, window: int, times: int) -> None:
        self._order, self._window, self._times = order, window, times

    def set_epoch(self, epoch: int) -> None:
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._order) * self._times

    def __iter__(self) -> Iterator[int]:
        rows = iter(self._order)
        while window := list(islice(rows, self._window)):
            for _ in range(self._times):
                yield from window
