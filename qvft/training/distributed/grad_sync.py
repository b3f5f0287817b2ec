"""Gradients of processes that each hold all weights, averaged when a step's passes are done.

DDP exchanges them within the backward pass. A process whose memory runs out there leaves the others
waiting for what it cannot give any more. Exchanged afterwards, a process may begin its part of a
step anew by itself, while the others wait for its gradients. What a transfer could have hidden
behind is little: the Q-Former, most of what is trained beside adapters, has its gradients last.
Where a decoder is trained in full it is much, and DDP exchanges as it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

AT_ONCE = 2**23
"""Weights whose gradients are sent together: 32 MB, of the size of DDP's own buckets."""


def exchanges_afterwards(model: nn.Module) -> bool:
    """Whether a wrapped objective's processes have nothing to say to each other within a pass.

    They have where a row is learnt with others, and where most weights are trained.
    """
    if not isinstance(model, DistributedDataParallel):
        return False
    return getattr(model.module, "adds_over_rows", False) and not _mostly_trained(model.module)


def _mostly_trained(module: nn.Module) -> bool:
    trained = sum(one.numel() for one in module.parameters() if one.requires_grad)
    return 2 * trained > sum(one.numel() for one in module.parameters())


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Makes each gradient the mean over all processes, in place; all of them must call it.

    A weight that a process has no gradient of counts as zero there.
    """
    for parameters in _together(one for one in module.parameters() if one.requires_grad):
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
    """The largest of what all processes say; all of them must ask."""
    largest = torch.tensor(number, device=place)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def _together(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    found: list[nn.Parameter] = []
    for one in parameters:
        if found and sum(each.numel() for each in found) + one.numel() > AT_ONCE:
            yield found
            found = []
        found.append(one)
    if found:
        yield found
