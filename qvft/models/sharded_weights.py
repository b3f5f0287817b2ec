"""FSDP-sharded weights (DTensor): gather the full tensor, shard it again.

Gathering is collective: every process must call it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether a module's weights are sharded across processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor itself, or the full tensor of a shard."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gradient(parameter: nn.Parameter) -> Tensor | None:
    """A weight's full gradient after the backward pass, or None."""
    return None if parameter.grad is None else full_tensor(parameter.grad.detach())


def shard_like(like: Tensor, tensor: Tensor) -> Tensor:
    """This process's shard of a full tensor, with the layout of `like`."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    tensor = tensor.to(device=like.device, dtype=like.dtype)
    # Every process has read the same file, so no communication is needed.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def copy_into(parameter: Tensor, tensor: Tensor) -> None:
    """Copies the values of a full tensor into a parameter, sharded or not."""
    parameter.copy_(shard_like(parameter, tensor))


def replicate_scalars(module: nn.Module, mesh: DeviceMesh) -> set[nn.Parameter]:
    """Replicates scalar parameters, which cannot be sharded, across processes.

    Read one with `local_scalar`.

    Returns:
        The new parameters.
    """
    replicated = set()
    for submodule in module.modules():
        for name, parameter in list(submodule.named_parameters(recurse=False)):
            if parameter.dim() == 0:
                value = parameter.detach().to(mesh.device_type)
                scalar = distribute_tensor(value, mesh, [Replicate()], src_data_rank=None)
                setattr(
                    submodule, name, nn.Parameter(scalar, requires_grad=parameter.requires_grad)
                )
                replicated.add(getattr(submodule, name))
    return replicated


def local_scalar(parameter: Tensor) -> Tensor:
    """A scalar parameter as a local tensor, for computing with it.

    Its gradient is the mean over the processes, as for shards. Collective in the backward pass.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    mesh, local = parameter.device_mesh, parameter.to_local()
    if local.requires_grad:
        local.register_hook(
            lambda grad: DTensor.from_local(grad, mesh, [Partial()]).full_tensor() / mesh.size()
        )
    return local


def accept_full_tensors(module: nn.Module) -> None:
    """Lets `load_state_dict` of a sharded module accept full tensors."""

    def shard_state(submodule: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, parameter in submodule.named_parameters(recurse=False):
            if prefix + name in state:
                state[prefix + name] = shard_like(parameter, state[prefix + name])

    for submodule in module.modules():
        submodule.register_load_state_dict_pre_hook(shard_state)
