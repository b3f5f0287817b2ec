"""Gradient synchronisation after the backward passes of a step, in place of DDP.

DDP all-reduces gradients within the backward pass. If one process runs out of memory there, the
others hang. Synchronised afterwards, a process can repeat its part of a step while the others wait
for its gradients. Little overlap of communication and computation is lost: the Q-Former, which has
most of the trained weights beside the adapters, gets its gradients last. If the decoder is trained
in full much would be lost, and DDP is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

AT_ONCE = 2**23
"""Weights per all-reduce bucket: 32 MB, about the size of DDP's buckets."""


def exchanges_afterwards(model: nn.Module) -> bool:
    """Whether gradients are synchronised after the backward passes: not if the loss of a row
    depends on other rows, nor if most weights are trained.
    """
    if not isinstance(model, DistributedDataParallel):
        return False
    weights = list(model.module.parameters())
    trained = sum(one.numel() for one in weights if one.requires_grad)
    mostly_trained = 2 * trained > sum(one.numel() for one in weights)
    return getattr(model.module, "adds_over_rows", False) and not mostly_trained


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Averages gradients over all processes, in place; a missing one is zero. Collective."""
    for parameters in _buckets(one for one in module.parameters() if one.requires_grad):
        for one in parameters:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        gradients = [one.grad for one in parameters if one.grad is not None]
        flat = parameters_to_vector(gradients) / dist.get_world_size()
        dist.all_reduce(flat)
        parts = flat.split([one.numel() for one in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def largest_of_all(number: int, place: torch.device) -> int:
    """Maximum of a value over all processes. Collective."""
    largest = torch.tensor(number, device=place)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    found: list[nn.Parameter] = []
    for one in parameters:
        if found and sum(each.numel() for each in found) + one.numel() > AT_ONCE:
            yield found
            found = []
        found.append(one)
    if found:
        yield found
