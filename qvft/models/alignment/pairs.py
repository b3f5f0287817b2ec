"""Image-text pairs of a batch, on this rank and across ranks, and the differentiable all-gather.

Shape letters: I images and N pairs of this process; J images and G pairs of all processes;
T text tokens; R rows of this process.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad


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


@dataclass(frozen=True)
class Pairs:
    """Image-text pairs of a batch.

    Attributes:
        image_ids: (I,) long: equal for equal images, in all processes.
        image_index: (N,) long: index of each text's image among this process's images.
        input_ids, text_mask: (N, T) long: texts, tokenized for the text branch, padded on the
            right.
    """

    image_ids: Tensor
    image_index: Tensor
    input_ids: Tensor
    text_mask: Tensor


@dataclass(frozen=True)
class GatheredPairs:
    """All processes' pairs by rank, and the position of this process's pairs.

    Attributes:
        pairs: the pairs; `image_index` indexes all J images.
        images, texts: number per process.
        rows: this process's pairs among G.
    """

    pairs: Pairs
    images: list[int]
    texts: list[int]
    rows: slice


def gather_pairs(pairs: Pairs) -> GatheredPairs:
    """All-gather of the pairs; texts are padded to the longest of all processes."""
    images, texts = row_counts(pairs.image_ids), row_counts(pairs.image_index)
    longest = torch.tensor(pairs.input_ids.shape[1], device=pairs.input_ids.device)
    if is_distributed():
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    padding = (0, int(longest) - pairs.input_ids.shape[1])
    start = first_row(texts)
    all_pairs = Pairs(
        image_ids=gathered(pairs.image_ids, images),
        image_index=gathered(pairs.image_index + first_row(images), texts),
        input_ids=gathered(pad(pairs.input_ids, padding), texts),
        text_mask=gathered(pad(pairs.text_mask, padding), texts),
    )
    return GatheredPairs(all_pairs, images, texts, slice(start, start + len(pairs.image_index)))


def matching_pairs(pairs: Pairs) -> Tensor:
    """Which text matches which pair's image, (G, G) bool.

    True if both are of one image, or if the two texts have equal tokens: a caption that describes
    two images is not a negative of either.
    """
    images = pairs.image_ids[pairs.image_index]
    texts = pairs.input_ids.masked_fill(pairs.text_mask == 0, -1)
    same_text = (texts[:, None] == texts[None, :]).all(dim=-1)
    return (images[:, None] == images[None, :]) | same_text
