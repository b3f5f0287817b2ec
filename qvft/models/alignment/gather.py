"""Differentiable all-gather: rows of all ranks in one tensor.

Shape letters: R rows of this process, G rows of all processes.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether there are other processes to gather from."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def row_counts(rows: Tensor) -> list[int]:
    """Number of rows of each process, by rank."""
    if not is_distributed():
        return [len(rows)]
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    return [int(count) for count in counts]


def first_row(counts: list[int]) -> int:
    """Index of this process's first row among all rows."""
    return sum(counts[: dist.get_rank()]) if is_distributed() else 0


def gathered(rows: Tensor, counts: list[int]) -> Tensor:
    """All-gather of rows (G, ...), by rank; processes may have different numbers of rows.

    Differentiable: a process's rows receive the sum of the gradients of every process's loss. So
    the summed gradients of the processes' losses are those of one loss over all rows.

    Args:
        rows: (R, ...), with the same dtype and the same other dimensions in every process.
        counts: R of each process, from `row_counts`.
    """
    return _Gather.apply(rows, counts) if is_distributed() else rows


class _Gather(torch.autograd.Function):
    """All-gather of unequal numbers of rows; backward sums over processes and takes its slice."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        ends = list(accumulate(ctx.counts))
        rank = dist.get_rank()
        return total[ends[rank] - ctx.counts[rank] : ends[rank]], None
