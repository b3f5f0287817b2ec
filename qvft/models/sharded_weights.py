"""FSDP-sharded weights (DTensor): gather the full tensor, shard it again.

Whoever asks for the whole of a tensor asks in all processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether processes hold parts of a module's weights."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one of which this process holds a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gradient(parameter: nn.Parameter) -> Tensor | None:
    """A weight's gradient after the backward pass, whole; None: it has none."""
    return None if parameter.grad is None else full_tensor(parameter.grad.detach())


def shard_like(like: Tensor, tensor: Tensor) -> Tensor:
    """This process's part of a tensor that all processes hold whole, laid out as `like` is."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    place = tensor.to(device=like.device, dtype=like.dtype)
    # Every process has read the same file, so that nothing need be sent.
    return distribute_tensor(place, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def copy_into(parameter: Tensor, tensor: Tensor) -> None:
    """Puts the values of a whole tensor into a parameter, sharded or not."""
    parameter.copy_(shard_like(parameter, tensor))


def hold_numbers(module: nn.Module, mesh: DeviceMesh) -> set[nn.Parameter]:
    """Makes parameters without a dimension, which cannot be cut, the same number in all processes.

    What computes with one asks `number` for it.

    Returns:
        These parameters, in the place of those that were there.
    """
    held = set()
    for one in module.modules():
        for name, parameter in list(one.named_parameters(recurse=False)):
            if parameter.dim() == 0:
                value = parameter.detach().to(mesh.device_type)
                same = distribute_tensor(value, mesh, [Replicate()], src_data_rank=None)
                setattr(one, name, nn.Parameter(same, requires_grad=parameter.requires_grad))
                held.add(getattr(one, name))
    return held


def local_scalar(parameter: Tensor) -> Tensor:
    """A parameter without a dimension, as what this process computes takes it.

    The gradient that comes back is the mean over the processes, as that of parts is. All of them
    must take part in the backward pass.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    mesh, mine = parameter.device_mesh, parameter.to_local()
    if mine.requires_grad:
        mine.register_hook(
            lambda asked: DTensor.from_local(asked, mesh, [Partial()]).full_tensor() / mesh.size()
        )
    return mine


def accept_whole_states(module: nn.Module) -> None:
    """Lets `load_state_dict` of a sharded module take whole tensors."""

    def lay_out(one: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, parameter in one.named_parameters(recurse=False):
            if prefix + name in state:
                state[prefix + name] = shard_like(parameter, state[prefix + name])

    for one in module.modules():
        one.register_load_state_dict_pre_hook(lay_out)
