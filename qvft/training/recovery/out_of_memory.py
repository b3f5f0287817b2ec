"""Out of memory: splits a batch into parts, or says what needs less memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from accelerate.utils.memory import should_reduce_batch_size

from qvft.errors import MemoryRanOutError

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is out-of-memory, on GPU or host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, Exception) and should_reduce_batch_size(error)


def in_halves(compute: Callable[[list[Item]], list[Result]], items: list[Item]) -> list[Result]:
    """What `compute` returns of all items, of each half by itself where they do not fit into
    memory.
    """
    try:
        return compute(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(items) < 2:
            raise
    middle = len(items) // 2
    return [*in_halves(compute, items[:middle]), *in_halves(compute, items[middle:])]


def parts_of(images: Sequence[str], *, halvings: int) -> list[list[int]]:
    """Indices of a batch's rows, halved so many times, in order.

    Splits at a change of image nearest to the middle, or in the middle if all rows are of one
    image. A part of one row is not split.
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


def settings_of(sizes: Mapping[str, int]) -> str:
    """Keys of `train` as overrides, e.g. `train.gradient_accumulation_steps=2`."""
    return " ".join(f"train.{key}={value}" for key, value in sizes.items())


def cannot_halve(
    reason: str, *, step: int, rows: int, rows_are: str, instead: Mapping[str, int]
) -> MemoryRanOutError:
    """Error for a batch that does not fit into memory and cannot be halved."""
    start = f"memory ran out at step {step} with {rows} {rows_are} at once"
    if rows < 2:
        return MemoryRanOutError(
            f"{start}; train.gradient_checkpointing=true, model.quantization.load_in_4bit=true or "
            "a lower data.max_text_tokens need less"
        )
    return MemoryRanOutError(
        f"{start}, and they cannot be halved on the way: {reason}; set "
        f"{settings_of(instead)}, or train.gradient_checkpointing=true"
    )
