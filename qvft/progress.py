"""Progress of long work: one updating line at a terminal, otherwise a line at least every 20 s."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator

REDRAWN_S, LINE_S = 0.25, 15.0
"""Seconds between updates of a terminal's line, and between lines without a terminal: short of 20,
because a long computation in C may hold up the thread that writes them."""

_lock = threading.RLock()
# No fork while the thread writes: a child would wait for its lock for ever.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)
_running: list[Callable[[], str]] = []
_thread: threading.Thread | None = None
_written = 0.0
_drawn = False


class Counted:
    """`What: 1,200 of 9,673, 2 min left`."""

    def __init__(self, what: str, total: int | None, done: int) -> None:
        self.what, self.total, self.done, self.begun = what, total, done, time.monotonic()
        self.before = done

    def advance(self, count: int = 1) -> None:
        """Counts further items as done."""
        self.done += count

    def __call__(self) -> str:
        seconds = time.monotonic() - self.begun
        if not self.total:
            return f"{self.what}, {duration(seconds)}"
        own = self.done - self.before
        left = seconds * (self.total - self.done) / own if own else None
        time_left = "" if left is None else f", {duration(left)} left"
        return f"{self.what}: {self.done:,} of {self.total:,}{time_left}"


@contextlib.contextmanager
def counted(what: str, total: int | None = None, *, done: int = 0) -> Iterator[Counted]:
    """Context manager: shows `what`, how much of `total` is done, and the time left.

    Args:
        total: number of items; None: unknown, and the time since the beginning is shown.
        done: items that were done before.
    """
    count = Counted(what, total, done)
    with shown(count):
        yield count


@contextlib.contextmanager
def shown(describe: Callable[[], str]) -> Iterator[None]:
    """Context manager: shows what `describe` returns, called in another thread, on stderr.

    Of nested ones the innermost is shown. Only the main process shows anything.
    """
    global _thread
    if int(os.environ.get("RANK", "0")):
        yield
        return
    with _lock:
        _running.append(describe)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_show, name="progress", daemon=True)
            _thread.start()
    try:
        yield
    finally:
        with held():
            _running.remove(describe)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Context manager: the updating line is removed and not drawn, so that others can write."""
    with _lock:
        _clear()
        yield


def say(text: str) -> None:
    """Writes a line that stays, with the time of day; the main process alone does."""
    global _written
    if int(os.environ.get("RANK", "0")):
        return
    with held():
        _written = time.monotonic()
        _write(f"{time.strftime('%H:%M:%S')} {text}\n")


def duration(seconds: float) -> str:
    """40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _show() -> None:
    global _drawn, _thread, _written
    if not _written:
        _written = time.monotonic()
    while True:
        time.sleep(REDRAWN_S)
        with _lock:
            if not _running:
                _thread = None
                return
            text = _running[-1]()
            if _is_terminal():
                width = shutil.get_terminal_size().columns - 1
                _write(f"\r{text[:width]}\x1b[K")
                _drawn = True
            elif time.monotonic() - _written >= LINE_S:
                say(text)


def _clear() -> None:
    global _drawn
    if _drawn:
        _write("\r\x1b[K")
        _drawn = False


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed stream
        sys.stderr.write(text)
        sys.stderr.flush()
