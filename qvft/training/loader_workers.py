"""The workers of a data loader: what they draw from, and which signals reach them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.data import DataLoader


def with_own_seeds(loader: DataLoader) -> DataLoader:
    """The loader, drawing seeds for workers, which need none, from a generator of its own.

    One that keeps its workers draws when it is first iterated over, and a resumed run iterates for
    the first time later than one that was never stopped: their dropout would differ.

    Its workers are deaf to SIGTERM: whoever stops a job often sends it to all of its processes, and
    without its workers the main one could not end the step it is in.
    """
    inner = getattr(loader, "base_dataloader", loader)  # accelerate's have torch's inside
    if inner.generator is None:
        inner.generator = torch.Generator()
    inner.worker_init_fn = partial(_deaf_to_sigterm, inner.worker_init_fn)
    return loader


def _deaf_to_sigterm(then: Callable[[int], None] | None, worker: int) -> None:
    """Begins a worker; one whose main process is gone ends by itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if then is not None:
        then(worker)
