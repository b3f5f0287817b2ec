"""Starting a program as a process of its own and ending it by SIGKILL at a moment drawn at random.

The process is forked from one that has imported torch already and has used it for nothing: what a
start costs is then the program's own work. What is killed is a whole process all the same.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOON_S = 0.03
"""A kill that waits for a file comes within so many seconds after it: a save takes 5 to 30 ms."""


@dataclass(frozen=True)
class Moment:
    """When a start is killed: after so many changes of the watched files, or after some seconds."""

    changes: int | None
    seconds: float


def drawn_moment(draw: random.Random, *, changes: int, seconds: float) -> Moment:
    """Half of the moments are counted in changes of files, half in seconds.

    Args:
        changes, seconds: what a start that nobody disturbs takes.
    """
    if draw.random() < 0.5:
        return Moment(draw.randint(1, max(1, changes)), draw.uniform(0, SOON_S))
    return Moment(None, draw.uniform(0, seconds))


def started(program: Callable[[], int], log: Path) -> int:
    """The process id of a child that runs `program`; its output goes to `log`."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, 1)
        os.dup2(opened, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        status = program()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def seen(folder: Path) -> tuple[Any, ...]:
    """What a folder holds, by name and size; what changes in it changes this."""
    found = []
    for path, _, names in os.walk(folder):
        for name in names:
            full = f"{path}/{name}"
            try:
                found.append((full, os.stat(full).st_size))
            except FileNotFoundError:
                continue
    return tuple(sorted(found))


@dataclass(frozen=True)
class Ended:
    """How a start ended: its status, None where it was killed; changes and seconds until then."""

    status: int | None
    changes: int
    seconds: float


def watched(child: int, folder: Path, moment: Moment | None) -> Ended:
    """Waits for a child, and kills it when its moment has come."""
    begun = time.monotonic()
    before, changes, due = seen(folder), 0, None
    if moment is not None and moment.changes is None:
        due = begun + moment.seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return Ended(code, changes, time.monotonic() - begun)
        now = seen(folder)
        if now != before:
            before, changes = now, changes + 1
            if moment is not None and changes == moment.changes:
                due = time.monotonic() + moment.seconds
        if due is not None and time.monotonic() >= due:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            killed = os.WIFSIGNALED(status)
            code = None if killed else os.waitstatus_to_exitcode(status)
            return Ended(code, changes, time.monotonic() - begun)
        time.sleep(0.001)
