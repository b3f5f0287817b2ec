"""DataLoader workers: seeds, signal handling, and their end."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader


def with_own_seeds(loader: DataLoader) -> DataLoader:
    """The DataLoader with worker seeds drawn from its own generator.

    A loader with persistent workers draws seeds at its first iteration. A resumed run iterates for
    the first time later than an uninterrupted one, so drawing from the global generator would
    change its dropout.

    Workers ignore SIGTERM: schedulers often send it to all processes of a job, and the main process
    needs its workers to finish the current step. When the main process exits, it terminates them
    and waits for them.
    """
    inner = getattr(loader, "base_dataloader", loader)  # accelerate's loaders wrap torch's
    if inner.generator is None:
        inner.generator = torch.Generator()
    inner.worker_init_fn = partial(_ignore_sigterm, _exiting(), inner.worker_init_fn)
    return loader


@contextmanager
def ended_workers(loaders: Iterable[DataLoader]) -> Iterator[None]:
    """Ends the loaders' persistent workers on exit.

    Left to garbage collection, they would not end: it closes the queue through which torch tells
    them before torch does, and torch then waits ten seconds per loader.
    """
    try:
        yield
    finally:
        for loader in loaders:
            inner: Any = getattr(loader, "base_dataloader", loader)
            batches, inner._iterator = inner._iterator, None
            if batches is not None:
                batches._shutdown_workers()


@cache
def _exiting() -> Any:
    """Whether this process is about to exit: a number that its workers see change."""
    exiting = RawValue("b", 0)
    # Runs before `multiprocessing` terminates children: handlers registered later run first.
    atexit.register(setattr, exiting, "value", 1)
    return exiting


def _ignore_sigterm(exiting: Any, then: Callable[[int], None] | None, worker: int) -> None:
    """Starts a worker that ignores SIGTERM until its main process exits."""

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        if exiting.value:
            os._exit(0)  # torch treats any other exit as a failure

    signal.signal(signal.SIGTERM, on_sigterm)
    if then is not None:
        then(worker)
