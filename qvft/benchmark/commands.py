"""Runs whole commands in turn, each in a process of its own: wall clock, CPU seconds, memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from qvft.errors import FailedError
from qvft.log import get_logger

logger = get_logger("qvft.bench")
ROUND = "{round}"


@dataclass(frozen=True)
class CommandPace:
    """Seconds of a command per round, CPU seconds (with the processes that it started), their
    medians with the first command's over this one's, and peak resident bytes.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    median_seconds: float
    median_cpu_seconds: float
    speedup: float
    cpu_ratio: float
    peak_memory_bytes: int


def measured(
    commands: Mapping[str, Sequence[str]], *, rounds: int, log: Path, environment: Mapping[str, str]
) -> dict[str, CommandPace]:
    """Runs Python with each command's arguments, in turn in each round, and writes what it prints
    to `log`. `ROUND` in arguments and further variables of the environment is the round's number.

    Raises FailedError, with the end of what it printed, if a command fails.
    """
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
    for number in map(str, range(rounds)):
        further = {key: value.replace(ROUND, number) for key, value in environment.items()}
        for name, command in commands.items():
            given = [sys.executable, *(one.replace(ROUND, number) for one in command)]
            taken[name].append(run_command(given, {**os.environ, **further}, log))
            logger.info("round %s, %s: %.1f s, %.1f s of CPU", number, name, *taken[name][-1][:2])
    paces: dict[str, CommandPace] = {}
    for name, found in taken.items():
        seconds, cpu, peaks = zip(*found, strict=True)
        medians = median(seconds), median(cpu)
        first = paces.get(next(iter(commands)))
        base = (first.median_seconds, first.median_cpu_seconds) if first else medians
        ratios = base[0] / medians[0], base[1] / medians[1]
        paces[name] = CommandPace(seconds, cpu, *medians, *ratios, max(peaks))
    return paces


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> tuple[float, float, int]:
    """Wall clock and CPU seconds, and peak resident bytes, of a process and those it waits for."""
    with log.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = "\n".join(log.read_text(errors="replace").strip().splitlines()[-5:])
        raise FailedError(f"{' '.join(command)}: exit status {process.returncode}: {said}")
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * kilobyte
