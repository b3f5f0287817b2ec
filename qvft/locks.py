"""File locks: one writer at a time; the kernel releases the lock when the process ends."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from qvft.disk import not_written
from qvft.errors import BusyError

LOCK = ".lock"


def inside(folder: Path) -> AbstractContextManager[None]:
    """Locks a folder, created if needed, by a lock file in it; raises as `_held`."""
    return _held(folder / LOCK, folder)


def beside(path: Path) -> AbstractContextManager[None]:
    """Locks an output file or folder by a lock file next to it; raises as `_held`."""
    path = Path(os.path.realpath(path))
    return _held(path.with_name(f".{path.name}{LOCK}"), path)


def in_turn(
    folder: Path, name: str, *, waiting: Callable[[BusyError], None]
) -> AbstractContextManager[None]:
    """Waits for the lock `name` of a folder; calls `waiting` once if another process holds it."""
    return _held(folder / f".{name}{LOCK}", folder, waiting=waiting)


@contextlib.contextmanager
def _held(
    file: Path, subject: Path, *, waiting: Callable[[BusyError], None] | None = None
) -> Iterator[None]:
    """Holds a lock file, and removes it afterwards; with `waiting` it waits.

    A lock file left by a killed process does not block. Child processes do not inherit the lock.
    Raises BusyError if another process holds it, DataError if the folder cannot be written to.
    """
    from filelock import FileLock, Timeout  # brings asyncio along, as much as all of qvft's start

    lock = FileLock(file, thread_local=False)
    for timeout in (0, -1):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout)
            break
        except Timeout as error:
            busy = BusyError(
                f"another process is writing here{_holder(file)}",
                where=str(subject),
                do="wait until it has ended, stop it, or choose another folder",
            )
            if waiting is None:
                raise busy from error
            waiting(busy)
        except OSError as error:
            raise not_written(error, subject) from error
    try:
        with contextlib.suppress(OSError):  # informative only; a full disk is noticed later
            file.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        # While it is locked: a process that waits for this file finds it gone and makes a new one.
        with contextlib.suppress(OSError):
            file.unlink()
        lock.release()


def _holder(file: Path) -> str:
    try:
        pid, host = file.read_text(encoding="utf-8").splitlines()[:2]
    except (OSError, ValueError):
        return ""
    return f" (process {pid} on {host})"
