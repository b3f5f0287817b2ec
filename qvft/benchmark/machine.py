"""Measures for benchmarks: seconds, peak memory, FLOPs and gradients of training steps."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}
"""Size of the square matrices for measuring FLOP/s."""
SAMPLE_S = 0.002

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the benchmarks of training steps have in common.

    Attributes:
        promised: the speed-up expected from FLOPs.
        max_abs_gradient_difference: between both sides, over all weights.
        max_abs_gradient: the largest gradient beside it.
    """

    promised: float
    max_abs_gradient_difference: float
    max_abs_gradient: float
    images: int
    batches: int
    rounds: int
    precision: str


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of a call and its seconds; the result must be on the CPU, so that nothing is
    still running on a GPU.
    """
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


@contextlib.contextmanager
def resident_peak() -> Iterator[Callable[[], int]]:
    """Yields a function that returns this process's peak of resident bytes above the start.

    Freed memory is first returned to the system. Sampled every 2 ms, so a shorter peak may be
    missed. Linux only; elsewhere 0.
    """
    if not os.path.exists("/proc/self/statm"):
        yield lambda: 0
        return
    ctypes.CDLL(None).malloc_trim(0)
    start = highest = _resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(SAMPLE_S):
            highest = max(highest, _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: highest - start
    finally:
        done.set()
        watcher.join()


def idle_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over the trained weights, with learning rate zero."""
    return torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=0.0)


def seconds_of(step: Callable[[Any], object], batches: Sequence[Any]) -> float:
    """Seconds of a step on each batch, to the end of what a GPU computes."""

    def run() -> None:
        for batch in batches:
            step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return timed(run)[1]


def peak_memory(place: torch.device, step: Callable[[Any], object], batches: Sequence[Any]) -> int:
    """Peak bytes of the largest step above those between steps; one step warms up."""
    step(batches[0])
    gc.collect()
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
        before = torch.cuda.memory_allocated(place)
        seconds_of(step, batches)
        return torch.cuda.max_memory_allocated(place) - before
    with resident_peak() as peak:
        seconds_of(step, batches)
    return peak()


def backward_flops(
    loss: Callable[[Any], Tensor], batches: Sequence[Any], optimizer: torch.optim.Optimizer
) -> float:
    """FLOPs of forward and backward passes on each batch, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            loss(batch).backward()
    optimizer.zero_grad()
    return float(counter.get_total_flops())


def gradients(
    loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The gradient of each weight that has one."""
    loss.backward()
    named = model.named_parameters()
    found = {name: one.grad.detach().clone() for name, one in named if one.grad is not None}
    optimizer.zero_grad()
    return found


def gradient_difference(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> tuple[float, float]:
    """The largest absolute difference of gradients, and the largest gradient of `second`."""
    differences = (float((first[name] - value).abs().max()) for name, value in second.items())
    return max(differences), max(float(value.abs().max()) for value in second.values())


def _resident() -> int:
    with open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def matmul_rate(place: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two large square matrices, the best of ten."""
    side = MATMUL_SIDE[place.type]
    a, b = (torch.randn(side, side, device=place).to(dtype) for _ in range(2))
    # Reading one number waits for the product.
    seconds = [timed(lambda: float((a @ b)[0, 0]))[1] for _ in range(10)]
    return 2 * side**3 / min(seconds)
