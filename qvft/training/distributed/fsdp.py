"""FSDP: each process holds a part of every weight, frozen or trained, and of AdamW's moments.

The launcher says that weights are to be sharded (`accelerate launch --use_fsdp --fsdp_version 2`);
how is decided here, since Accelerate's way is made for models that are trained whole: it would wrap
the objective by class names and expect one type of weight. Torch's `fully_shard` wants one type
only of those weights of a group that are trained, which are float32; frozen ones beside them may be
bfloat16.

A checkpoint does not show that a run was sharded: weights and optimizer are gathered, so that it
goes on under any number of processes, sharded or not.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from qvft.errors import RecipeError
from qvft.models.distributed import processes
from qvft.models.families import Family
from qvft.models.quantize import rest_in_plain_weights
from qvft.models.sharded_weights import accept_whole_states, full_tensor, hold_numbers, shard_like

_ASKED = "ACCELERATE_USE_FSDP"
_TAKEN = "QVFT_SHARDS_WEIGHTS"


def asked_to_shard() -> bool:
    """Whether the launcher asks for FSDP; from then on Accelerate and transformers do not see it.

    They would wrap the model their own way.

    Raises:
        RecipeError: it asks for the first version of FSDP, or for weights that rest in the CPU's
            memory.
    """
    if not _is_set(_ASKED):
        return _is_set(_TAKEN)
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError(
            "asks for FSDP 1",
            where="accelerate launch",
            expected="FSDP 2",
            do="set fsdp_version: 2, as recipes/accelerate/fsdp.yaml does",
        )
    if _is_set("FSDP_OFFLOAD_PARAMS"):
        raise RecipeError(
            "asks to keep weights in the CPU's memory",
            where="accelerate launch",
            expected="fsdp_offload_params: false",
            do="add processes, or quantise the decoder and use DDP",
        )
    del os.environ[_ASKED]
    os.environ[_TAKEN] = "true"
    return True


def shard(objective: nn.Module, model: PreTrainedModel, family: Family) -> None:
    """Cuts all weights of an objective into equal parts, one a process, in place.

    A block of the decoder or of the ViT is gathered while it computes; all else (embeddings,
    Q-Former, projection, heads), which is needed all the way, for a whole pass, forward or
    backward. A ViT whose weights were let go has nothing to cut.

    What is trained may change afterwards, in `requires_grad`, not in type.

    Args:
        objective: the module whose `forward` is a step.
        model: in it, with LoRA layers; weights that are trained at any time are float32.
    """
    # A block returns a view of what it computed, which nothing changes in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    place = processes().device
    mesh = init_device_mesh(place.type, (dist.get_world_size(),))
    rest_in_plain_weights(model, place)
    ignored = {one for one in objective.parameters() if not one.is_contiguous()}
    ignored |= hold_numbers(objective, mesh)
    for block in _blocks(model, family):
        fully_shard(block, mesh=mesh, ignored_params=ignored)
    # Cut again after each forward pass, the last of an evaluation too: whoever looks at the weights
    # between two steps must find parts.
    fully_shard(objective, mesh=mesh, ignored_params=ignored, reshard_after_forward=True)
    accept_whole_states(objective)


def without_autocast(objective: nn.Module) -> nn.Module:
    """The objective without what the Trainer of an earlier phase has put around its `forward`."""
    return extract_model_from_parallel(objective, keep_fp32_wrapper=False)


def _blocks(model: PreTrainedModel, family: Family) -> list[nn.Module]:
    decoder: Any = model.get_submodule(family.blocks(model.config))
    lists = [
        one
        for one in model.get_submodule("vision_model").modules()
        if isinstance(one, nn.ModuleList)
    ]
    blocks = [*decoder, *(block for one in lists for block in one)]
    # Of a ViT that was let go no weight is left.
    return [one for one in blocks if all(p.is_contiguous() for p in one.parameters())]


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer over sharded weights, as it would be over whole ones, on the CPU.

    All processes must ask.
    """
    content = optimizer.state_dict()
    state = {
        number: {
            name: full_tensor(value).cpu() if isinstance(value, Tensor) else value
            for name, value in entry.items()
        }
        for number, entry in content["state"].items()
    }
    return {**content, "state": state}


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Cuts the state of an optimizer, loaded whole, as its weights are cut."""
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            # AdamW's own counter has no dimension, as some parameters have none.
            if name != "step" and isinstance(value, Tensor) and value.shape == parameter.shape:
                entry[name] = shard_like(parameter, value)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
