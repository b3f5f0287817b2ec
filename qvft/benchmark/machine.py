"""Benchmark helpers: peak memory of a step, FLOP/s of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator

import torch

MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}
"""Size of the square matrices for measuring FLOP/s."""
SAMPLE_S = 0.002


@contextlib.contextmanager
def resident_peak() -> Iterator[Callable[[], int]]:
    """Context manager: measures this process's peak memory, without GPU.

    Yields a function that returns, afterwards, the peak of resident bytes above the start. Freed
    memory is first returned to the system. Sampled every 2 ms, so a shorter peak may be missed.
    Linux only; elsewhere 0.
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


def _resident() -> int:
    with open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def matmul_rate(place: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two large square matrices, the best of ten."""
    side = MATMUL_SIDE[place.type]
    a, b = (torch.randn(side, side, device=place).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        start = time.perf_counter()
        a @ b
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
