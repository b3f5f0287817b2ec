"""Process group: world size, rank, and `all_gather_object`."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState

from qvft.errors import RecipeError


def processes() -> PartialState:
    """Accelerate's state; initialises the process group at the first call.

    Without a GPU, Accelerate must be told to use the CPU; otherwise it would not find the other
    processes.

    Raises:
        RecipeError: the launcher asks for DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("true", "1"):
        raise RecipeError(
            "asks for DeepSpeed",
            where="accelerate launch",
            expected="DDP or FSDP 2",
            do="use recipes/accelerate/ddp.yaml, or fsdp.yaml for a model too large for one GPU",
        )
    return PartialState(cpu=not torch.cuda.is_available())


def all_gather_object(obj: Any) -> list[Any]:
    """Gathers one object per rank, by rank. Collective: every rank must call it."""
    state = processes()
    if state.num_processes == 1:
        return [obj]
    gathered: list[Any] = [None] * state.num_processes
    dist.all_gather_object(gathered, obj)
    return gathered
