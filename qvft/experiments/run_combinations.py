"""Trains and evaluates the combinations of a sweep, one after the other."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qvft.experiments.combinations import Combination
from qvft.experiments.read_runs import RECORD
from qvft.json_files import read_json, sha256_json, write_json
from qvft.log import stdout
from qvft.training.run_folder import is_finished

SECONDS = 10
"""Between two lines of a program's output that are shown; its log has all."""


def run_combinations(
    found: Sequence[Combination], recipe: str, *, evaluates: bool, launch: str | None
) -> int:
    """Runs each in processes of its own, and goes on if one fails; returns how many failed.

    What has succeeded with the same recipe before is skipped; a run that was stopped is resumed.

    Args:
        launch: command before `-m qvft.train ...`; None: this Python.
    """
    failed = 0
    for number, one in enumerate(found, start=1):
        title = f"{number} of {len(found)}: {one.folder}"
        steps = {"train": [recipe, *one.overrides, f"run.dir={one.folder}", "train.resume=auto"]}
        if evaluates:
            steps["eval"] = [str(one.folder), *one.overrides]
        if is_done(one, list(steps)):
            stdout.print(f"{title}: finished before, skipped", highlight=False)
            continue
        record: dict[str, Any] = {"recipe_sha256": _hash(one)}
        for step, arguments in steps.items():
            stdout.print(f"{title}: {step}", highlight=False)
            start = shlex.split(launch) if launch else [sys.executable]
            command = [*start, "-m", f"qvft.{step}", *arguments]
            record[step], record["message"] = _run(command, one.folder / f"{step}.log")
            write_json(one.folder / RECORD, record)
            if record[step]:
                failed += 1
                line = f"{title}: {step} failed ({record[step]}): {record['message']}"
                stdout.print(line, highlight=False)
                break
    return failed


def is_done(one: Combination, steps: Sequence[str]) -> bool:
    """Whether all steps have succeeded with this recipe."""
    path = one.folder / RECORD
    record = read_json(path) if path.is_file() and is_finished(one.folder) else {}
    done = all(record.get(step) == 0 for step in steps)
    return done and record.get("recipe_sha256") == _hash(one)


def _hash(one: Combination) -> str:
    return sha256_json(one.recipe.model_dump(mode="json"))


def _run(command: Sequence[str], log: Path) -> tuple[int, str]:
    """Exit status and error or last line of a program, whose output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    last, message, shown_at = "", "", time.monotonic()
    with (
        log.open("a", encoding="utf-8") as kept,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                kept.write(line)
                last = line.strip() or last
                message = message if message.startswith("qvft:") else last  # not the launcher's
                if time.monotonic() - shown_at > SECONDS:
                    stdout.print(f"  {last}", highlight=False)
                    shown_at = time.monotonic()
        except BaseException:
            process.terminate()  # it saves a checkpoint
            process.communicate()
            raise
    return process.returncode, message
