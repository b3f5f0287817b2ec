"""A batch in parts, where the whole does not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate.utils.memory import should_reduce_batch_size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, Exception) and should_reduce_batch_size(error)


def parts_of(images: Sequence[str], *, halvings: int) -> list[list[int]]:
    """The places of a batch's rows, cut in half so many times, in order.

    A cut goes where the image changes, at the place nearest to the middle; rows of one image alone
    are cut in the middle. A part of one row stays.

    Args:
        images: of each row, the one it is about.
    """
    parts = [list(range(len(images)))]
    for _ in range(halvings):
        parts = [half for part in parts for half in _halves(part, images)]
    return parts


def _halves(part: list[int], images: Sequence[str]) -> list[list[int]]:
    if len(part) < 2:
        return [part]
    borders = [at for at in range(1, len(part)) if images[part[at - 1]] != images[part[at]]]
    middle = len(part) / 2
    at = min(borders or [len(part) // 2], key=lambda border: abs(border - middle))
    return [part[:at], part[at:]]
