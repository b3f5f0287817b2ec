"""CPU threads: thread count, OpenMP wait policy, and whether the machine is busy.

Does not import torch, since the wait policy must be set before torch is loaded.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

logger = logging.getLogger("qvft.cpu_threads")
Item = TypeVar("Item")
Result = TypeVar("Result")

SHORT = 0.001  # seconds
MOST_THREADS = 8  # of `in_threads`; more would wait for Python's interpreter lock

WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # GNU's OpenMP, which torch's Linux wheels bring along: about 30 microseconds (its own default
    # is 300,000), enough for the operations of a small model, docs/performance.md
    "GOMP_SPINCOUNT": "3000",
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's, in milliseconds of spinning
}


def wait_passively() -> None:
    """Sets OpenMP's wait policy to passive, unless the environment sets one.

    Spinning threads occupy cores that other threads need: with another job on the machine, training
    on two cores becomes several times slower. OpenMP reads this once, when torch is loaded.

    Source: OpenMP 5.2, section 21.7 (OMP_WAIT_POLICY); GNU libgomp manual (GOMP_SPINCOUNT); LLVM
    OpenMP runtime (KMP_BLOCKTIME).
    """
    if not any(name in os.environ for name in (*WAITING, "KMP_LIBRARY")):
        os.environ.update(WAITING)


def cpu_cores() -> int:
    """Number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 1024, tried: int = 8
) -> Iterator[Result]:
    """Results of `work`, in order, at most `ahead` held at once, from threads on this process's
    share of the cores; for work that releases Python's interpreter lock (Pillow, numpy).

    Short work, as on images of 64 pixels, is done in this thread, as the first `2 * tried` items
    show: threads would spend more on waiting for the lock than other cores give. With `tried=0` it
    is taken to be long.
    """
    share = cpu_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    remaining = iter(items)
    first = [work(item) for item in islice(remaining, min(tried, ahead))]  # with imports
    start = time.perf_counter()
    second = [work(item) for item in islice(remaining, min(tried, ahead - len(first)))]
    is_short = time.perf_counter() - start < SHORT * len(second)
    yield from first + second
    if is_short or share < 2:
        yield from map(work, remaining)
        return
    with ThreadPoolExecutor(min(MOST_THREADS, share)) as pool:
        while batch := list(islice(remaining, ahead)):
            yield from map(work, batch) if len(batch) == 1 else pool.map(work, batch)


@functools.cache
def warn_if_busy() -> None:
    """Logs a warning, once per process, if the machine's load exceeds its cores."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores and os.environ.get("LOCAL_RANK", "0") == "0":
        logger.warning(
            "other programs use this machine's cores too (load %.1f on %d cores): "
            "this will take longer than on an idle machine",
            load,
            cores,
        )
