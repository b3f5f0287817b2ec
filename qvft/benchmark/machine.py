"""Measures for benchmarks: time of a call, peak memory of a step, FLOP/s of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}
"""Size of the square matrices for measuring FLOP/s."""
SAMPLE_S = 0.002


Result = TypeVar("Result")


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


def step_memory(place: torch.device, step: Callable[[], object]) -> int:
    """Peak bytes of a step above those between steps; the first one only warms up."""
    step()
    gc.collect()
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
        before = torch.cuda.memory_allocated(place)
        step()
        torch.cuda.synchronize(place)
        return torch.cuda.max_memory_allocated(place) - before
    with resident_peak() as peak:
        step()
    return peak()


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
