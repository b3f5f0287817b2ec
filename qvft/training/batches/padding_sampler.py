"""An epoch whose rows do not come out even among the processes is filled up with rows of no text.

Accelerate fills up too, but with rows from the epoch's beginning, from which would be learnt twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

from qvft.data.rows import FILLER


class Filled(Sampler[int]):
    """A sampler's order, then `FILLER` until the length is a multiple of what a step takes.

    So N processes with batches of B see, batch by batch, what one process with batches of N x B
    sees: those that are left over stand in the last batch, among fillers that count nothing.

    Args:
        order: sized, with `set_epoch`.
        multiple: batch size times processes.
    """

    def __init__(self, order: Any, *, multiple: int) -> None:
        self._order, self._multiple = order, multiple

    def set_epoch(self, epoch: int) -> None:
        """As the sampler's."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._order) // self._multiple) * self._multiple

    def __iter__(self) -> Iterator[int]:
        yield from self._order
        yield from [FILLER] * (len(self) - len(self._order))
