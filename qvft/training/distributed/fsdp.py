"""FSDP: shards weights, frozen and trained, and AdamW's state across processes.

The launcher turns it on (`accelerate launch --use_fsdp --fsdp_version 2`); how weights are sharded
is decided here, since Accelerate expects fully trained models: it would wrap the objective by class
names and require one dtype for all weights. Torch's `fully_shard` requires one dtype per group only
for trained weights, which are float32; frozen ones may be bfloat16.

Checkpoints hold full weights and optimizer state, so a run resumes under any number of processes,
sharded or not.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from qvft.errors import RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import is_encoder_decoder
from qvft.models.distributed import processes
from qvft.models.families import Family
from qvft.models.quantize import store_as_plain_parameters
from qvft.models.sharded_weights import (
    accept_full_tensors,
    full_tensor,
    replicate_scalars,
    shard_like,
)
from qvft.recipe.phases import PhasePlan

_LAUNCHERS = "ACCELERATE_USE_FSDP"
_OURS = "QVFT_SHARDS_WEIGHTS"


def asked_to_shard() -> bool:
    """Whether the launcher enables FSDP; afterwards hides this from Accelerate and transformers.

    They would wrap the model themselves.

    Raises:
        RecipeError: it asks for FSDP 1, or for CPU offload of weights.
    """
    if not _is_set(_LAUNCHERS):
        return _is_set(_OURS)
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError(
            "asks for FSDP 1",
            where="accelerate launch",
            expected="FSDP 2",
            do="set fsdp_version: 2, as recipes/accelerate/fsdp.yaml does",
        )
    if _is_set("FSDP_OFFLOAD_PARAMS"):
        raise RecipeError(
            "asks for CPU offload of weights",
            where="accelerate launch",
            expected="fsdp_offload_params: false",
            do="add processes, or quantise the decoder and use DDP",
        )
    del os.environ[_LAUNCHERS]
    os.environ[_OURS] = "true"
    return True


def require_shardable(
    base: BaseCheckpoint, custom: Collection[str], plans: Sequence[PhasePlan] = ()
) -> None:
    """Raises RecipeError if FSDP cannot shard the model, an objective or a phase."""

    def refuse(given: str, where: str, expected: str) -> NoReturn:
        raise RecipeError(
            given, where=where, expected=expected, do="use DDP (recipes/accelerate/ddp.yaml)"
        )

    if is_encoder_decoder(base.config):
        kind = base.config.text_config.model_type
        given = f"a {kind} decoder under FSDP, whose encoder would not be sharded"
        refuse(given, "model.id", "a decoder-only model")
    if custom:
        expected = "none: weights are sharded within the objectives that qvft knows"
        refuse(f"{', '.join(custom)} under FSDP", "objectives.custom", expected)
    for number, plan in enumerate(plans):
        metric, objective = plan.train.metric_for_best_model, plan.phase.objective
        if metric != "loss":
            given = f"{metric} under FSDP, whose texts need whole weights"
            refuse(given, "train.metric_for_best_model", "loss")
        if objective != "language":
            given = f"{objective} under FSDP, which needs whole weights"
            refuse(given, f"phases.{number}.objective", "language")


def shard(objective: nn.Module, model: PreTrainedModel, family: Family) -> None:
    """Shards all weights of an objective across processes, in place.

    Each decoder or ViT block is gathered while it computes; the rest (embeddings, Q-Former,
    projection, heads) for a whole forward or backward pass. An unloaded ViT has nothing to shard.
    `requires_grad` may change afterwards, dtypes may not.
    """
    # A block returns a view of its output, which nothing changes in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    place = processes().device
    mesh = init_device_mesh(place.type, (dist.get_world_size(),))
    store_as_plain_parameters(model, place)
    ignored = {one for one in objective.parameters() if not one.is_contiguous()}
    ignored |= replicate_scalars(objective, mesh)
    for block in _blocks(model, family):
        fully_shard(block, mesh=mesh, ignored_params=ignored)
    # Reshard after each forward pass, also the last of an evaluation: between two steps weights
    # must be sharded.
    fully_shard(objective, mesh=mesh, ignored_params=ignored, reshard_after_forward=True)
    accept_full_tensors(objective)


def without_autocast(objective: nn.Module) -> nn.Module:
    """The objective without the autocast wrapper that the Trainer of an earlier phase put around
    its `forward`.
    """
    return extract_model_from_parallel(objective, keep_fp32_wrapper=False)


def _blocks(model: PreTrainedModel, family: Family) -> list[nn.Module]:
    decoder: Any = model.get_submodule(family.blocks(model.config)[-1])
    vision = model.get_submodule("vision_model").modules()
    lists = [one for one in vision if isinstance(one, nn.ModuleList)]
    blocks = [*decoder, *(block for one in lists for block in one)]
    # An unloaded ViT has no weights left.
    return [one for one in blocks if all(p.is_contiguous() for p in one.parameters())]


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Full optimizer state, gathered from sharded weights, on the CPU.

    Collective: every process must call it.
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
    """Shards a loaded full optimizer state as its weights are sharded."""
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            # AdamW's step counter is a scalar, as are some parameters.
            if name != "step" and isinstance(value, Tensor) and value.shape == parameter.shape:
                entry[name] = shard_like(parameter, value)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
