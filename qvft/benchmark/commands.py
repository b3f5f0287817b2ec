"""Runs whole commands in turn, each in a process of its own: wall clock, CPU seconds, memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qvft.errors import FailedError
from qvft.log import get_logger

logger = get_logger("qvft.bench")

ROUND = "{round}"


@dataclass(frozen=True)
class CommandPace:
    """A command's wall clock and CPU seconds per round (with the processes that it started), their
    medians, and its highest peak of resident bytes.

    Attributes:
        speedup, cpu_ratio: the plain command's median over this one's.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    median_seconds: float
    median_cpu_seconds: float
    peak_memory_bytes: int
    speedup: float = 1.0
    cpu_ratio: float = 1.0


def measured(
    commands: Mapping[str, Sequence[str]],
    *,
    rounds: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    cores: int | None = None,
) -> dict[str, CommandPace]:
    """Runs Python commands in turn, in each round; the first is the one to compare with.

    Args:
        commands: arguments of Python by name; `ROUND` in one is the round's number.
        environment: further variables of all of them, with `ROUND` likewise.
        log: file for what a command prints; a failing one's is in the error.
        cores: number of cores that a command may use; None: all.

    Raises:
        FailedError: a command failed.
    """
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
    for number in range(rounds):
        variables = {k: v.replace(ROUND, str(number)) for k, v in (environment or {}).items()}
        for name, arguments in commands.items():
            command = [sys.executable, *(one.replace(ROUND, str(number)) for one in arguments)]
            found[name].append(run(command, variables, log, cores))
            says = "round %d of %d, %s: %.1f s, %.1f s of CPU"
            logger.info(says, number + 1, rounds, name, *found[name][-1][:2])
    paces: dict[str, CommandPace] = {}
    for name, taken in found.items():
        seconds, cpu = tuple(one[0] for one in taken), tuple(one[1] for one in taken)
        median, cpu_median = statistics.median(seconds), statistics.median(cpu)
        first = paces.get(next(iter(commands)))
        paces[name] = CommandPace(
            seconds,
            cpu,
            median,
            cpu_median,
            max(one[2] for one in taken),
            speedup=first.median_seconds / median if first else 1.0,
            cpu_ratio=first.median_cpu_seconds / cpu_median if first else 1.0,
        )
    return paces


def run(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cores: int | None
) -> tuple[float, float, int]:
    """Wall clock and CPU seconds, and peak resident bytes, of a process and those it waits for."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    if before and cores is not None:
        os.sched_setaffinity(0, sorted(before)[:cores])  # inherited
    try:
        with log.open("wb") as written:
            start = time.perf_counter()
            process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=written, stderr=written
            )
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if before:
            os.sched_setaffinity(0, before)
    if process.returncode:
        said = log.read_text(errors="replace").strip().splitlines()[-5:]
        raise FailedError(
            f"{' '.join(command)}: exit status {process.returncode}: " + "\n".join(said)
        )
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit
