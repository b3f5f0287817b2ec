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
_written, _drawn = 0.0, False


class Counted:
    """`What: 1,200 of 9,673, 2 min left`; without a total the time since the beginning."""

    def __init__(self, what: str, total: int | None = None, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self.before, self.begun = done, time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Counts further items as done."""
        self.done += count

    def __call__(self) -> str:
        seconds, own = time.monotonic() - self.begun, self.done - self.before
        if not self.total:
            return f"{self.what}, {duration(seconds)}"
        left = f", {duration(seconds * (self.total - self.done) / own)} left" if own else ""
        return f"{self.what}: {self.done:,} of {self.total:,}{left}"


@contextlib.contextmanager
def counted(what: str, total: int | None = None, *, done: int = 0) -> Iterator[Counted]:
    """Context manager: shows `what`, and how many of `total` items are done, `done` before it."""
    count = Counted(what, total, done)
    with shown(count):
        yield count


@contextlib.contextmanager
def shown(describe: Callable[[], str]) -> Iterator[None]:
    """Context manager: the main process shows on stderr what `describe` returns, called in another
    thread; of nested ones, the innermost.
    """
    global _thread
    with _lock:
        _running.append(describe)
        if _thread is None and _is_main():
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
    global _drawn
    with _lock:
        if _drawn:
            _write("\r\x1b[K")
        _drawn = False
        yield


def say(text: str) -> None:
    """Writes a line that stays, with the time of day; the main process alone does."""
    global _written
    if _is_main():
        with held():
            _written = time.monotonic()
            _write(f"{time.strftime('%H:%M:%S')} {text}\n")


def duration(seconds: float) -> str:
    """40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _show() -> None:
    global _drawn, _thread, _written
    _written = _written or time.monotonic()
    while True:
        time.sleep(REDRAWN_S)
        with _lock:
            if not _running:
                _thread = None
                return
            if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
                width = shutil.get_terminal_size().columns - 1
                _write(f"\r{_running[-1]()[:width]}\x1b[K")
                _drawn = True
            elif time.monotonic() - _written >= LINE_S:
                say(_running[-1]())


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed stream
        sys.stderr.write(text)
        sys.stderr.flush()
