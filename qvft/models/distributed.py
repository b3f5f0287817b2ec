"""The processes that a launcher has started: how many, which this is, and what the others say."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState

DEEPSPEED = "QVFT_USES_DEEPSPEED"
"""Set to `true` in the environment where the launcher asked for DeepSpeed."""


def processes() -> PartialState:
    """Accelerate's state, which joins the processes when it is first asked for.

    Without a GPU it does so only if it is told that there is none; by itself it would take each
    process for the only one. That the launcher asks for DeepSpeed is not for Accelerate to see,
    which would join by it, and take the step out of the Trainer's hands.
    """
    asked = os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    if asked is not None:
        os.environ[DEEPSPEED] = asked.lower()
    return PartialState(cpu=not torch.cuda.is_available())


def all_gather_object(mine: Any) -> list[Any]:
    """What each process says, in the order of their ranks. All of them must ask."""
    state = processes()
    if state.num_processes == 1:
        return [mine]
    said: list[Any] = [None] * state.num_processes
    dist.all_gather_object(said, mine)
    return said
