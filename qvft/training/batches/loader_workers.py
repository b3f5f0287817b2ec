"""The workers of a data loader: what they draw from, and which signals reach them."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader


def with_own_seeds(loader: DataLoader) -> DataLoader:
    """The loader, drawing seeds for workers, which need none, from a generator of its own.

    One that keeps its workers draws when it is first iterated over, and a resumed run iterates for
    the first time later than one that was never stopped: their dropout would differ.

    Its workers are deaf to SIGTERM: whoever stops a job often sends it to all of its processes, and
    without its workers the main one could not end the step it is in. They hear it when the main
    process leaves, which ends them by it and waits until they are gone.
    """
    inner = getattr(loader, "base_dataloader", loader)  # accelerate's have torch's inside
    if inner.generator is None:
        inner.generator = torch.Generator()
    inner.worker_init_fn = partial(_deaf_to_sigterm, _leaving(), inner.worker_init_fn)
    return loader


@cache
def _leaving() -> Any:
    """Whether this process is about to end, a number that its workers see change."""
    leaving = RawValue("b", 0)
    # Before `multiprocessing` ends what is left: what is registered later is called first.
    atexit.register(setattr, leaving, "value", 1)
    return leaving


def _deaf_to_sigterm(leaving: Any, then: Callable[[int], None] | None, worker: int) -> None:
    """Begins a worker; one whose main process is gone ends by itself."""

    def heard(number: int, frame: FrameType | None) -> None:
        if leaving.value:
            os._exit(0)  # torch takes any other end for a failure

    signal.signal(signal.SIGTERM, heard)
    if then is not None:
        then(worker)
