"""Process group: world size, rank, and `all_gather_object`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import PartialState

from qvft.errors import QvftError, RecipeError

T = TypeVar("T")


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


def from_main_process(call: Callable[[], T]) -> T:
    """What `call` returns in the main process, or its error, in every rank. Collective.

    So ranks agree where a user's own function may vary; they would wait for each other for ever.
    """
    result: T | None = None
    problem: QvftError | None = None
    if processes().is_main_process:
        try:
            result = call()
        except QvftError as error:
            problem = error
    result, problem = all_gather_object((result, problem))[0]
    if problem is not None:
        raise problem
    return cast(T, result)
