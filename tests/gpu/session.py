"""Measurements under one clock: each within its budget, results written after each."""

from __future__ import annotations

import contextlib
import gc
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch


class Session:
    """Runs measurements until the time is up; what is missing has its reason.

    Attributes:
        found: the result of every planned measurement by name, or `{"not_measured": reason}`.
    """

    def __init__(
        self, names: Iterable[str], *, minutes: float, write: Callable[[dict[str, Any]], None]
    ) -> None:
        """
        Args:
            names: the planned measurements.
            minutes: time for all of them.
            write: called with `found` after each.
        """
        self.end = time.monotonic() + 60 * minutes
        self.found: dict[str, Any] = {name: {"not_measured": "not reached"} for name in names}
        self.write = write
        write(self.found)

    def measure(self, name: str, work: Callable[[], Any], *, budget_s: float) -> None:
        """Keeps the result of `work`, which is interrupted after its budget; or why there is none.

        It is not begun with less than its budget left, so that a shorter one may have the time.
        """
        start = time.monotonic()
        left_s = self.end - start
        if left_s < budget_s:
            reason = f"{max(0.0, left_s):.0f} s were left of its budget of {budget_s:.0f} s"
            self.found[name] = {"not_measured": reason}
        else:
            try:
                with _interrupted_after(budget_s):
                    self.found[name] = work()
            # Whatever one measurement meets (no memory, no kernel), the others are still wanted.
            except Exception as error:
                reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
                self.found[name] = {"not_measured": reason}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.write(self.found)
        print(f"{name}: {time.monotonic() - start:.1f} s {self.found[name]}"[:300], flush=True)


@contextlib.contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block when its time is up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took longer than its budget of {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
