"""Training on the CPU beside another job, with OpenMP threads that soon sleep or long spin.

    python docs/studies/busy_machine.py FOLDER [--rounds 3] [--steps 60] [--out busy.json]

Runs `qvft.train` on the quickstart's digits with as many threads as cores, in a fresh process for
each row of the table, in turn: alone and beside a second training of as many threads, with the way
of waiting that qvft sets, with threads that sleep at once, and with OpenMP's own default. Beside a
second job of as many threads the fair share of the cores is half, so that twice the time would be
fair. The time is that of the steps after the first 10, from `metrics.jsonl`; ratios are taken
within each round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from qvft.cpu_threads import WAITING, cpu_cores
from qvft.json_files import complete_lines

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.digits import write_digits

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart_digits.yaml"
FIRST = 10
ARMS = {"qvft": dict(WAITING), "sleep": WAITING | {"GOMP_SPINCOUNT": "0"}, "default": {}}


def environment(arm: str) -> dict[str, str]:
    """This process's environment with the arm's way of waiting; undefined is OpenMP's default."""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    kept.pop("OMP_NUM_THREADS", None)
    # qvft leaves the way of waiting alone where any of its variables is set; this one has the
    # value that Intel's and LLVM's OpenMP take without it, and GNU's does not read it.
    return kept | (ARMS[arm] or {"KMP_LIBRARY": "throughput"})


def command(folder: Path, run: Path, steps: int) -> list[str]:
    """A training of so many steps into its own run folder."""
    given = {
        "data.train.path": folder / "digits" / "train.jsonl",
        "data.eval.path": folder / "digits" / "test.jsonl",
        "run.dir": run,
        "run.threads": cpu_cores(),
        "train.max_steps": steps,
        "train.logging_steps": FIRST,
    }
    overrides = [f"{key}={value}" for key, value in given.items()]
    return [sys.executable, "-m", "qvft.train", str(RECIPE), *overrides]


def seconds(folder: Path, run: Path, arm: str, steps: int) -> float:
    """What the steps after the first `FIRST` took."""
    subprocess.run(
        command(folder, run, steps), env=environment(arm), check=True, capture_output=True
    )
    at = {row["step"]: row["seconds"] for row in complete_lines(run / "metrics.jsonl")}
    return at[steps] - at[FIRST]


@contextlib.contextmanager
def neighbour(folder: Path, run: Path, arm: str) -> Iterator[None]:
    """A second training that runs until the context ends."""
    other = subprocess.Popen(
        command(folder, run, 10**6),
        env=environment(arm),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (run / "metrics.jsonl").exists() and other.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                other.wait(0.2)
        yield
    finally:
        other.kill()
        other.wait()


def main() -> int:
    """Measures, prints a table and, if asked to, writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not (given.folder / "digits").exists():
        write_digits(given.folder / "digits")
    rounds = []
    for number in range(given.rounds):
        took = {}
        for arm in ARMS:
            run = given.folder / f"{number}-{arm}"
            took[f"alone, {arm}"] = seconds(given.folder, run / "alone", arm, given.steps)
            with neighbour(given.folder, run / "neighbour", arm):
                took[f"busy, {arm}"] = seconds(given.folder, run / "busy", arm, given.steps)
        print(json.dumps(took), flush=True)
        rounds.append(took)
    table = {
        name: {
            "median_seconds": statistics.median(took[name] for took in rounds),
            "times_alone_default": statistics.median(
                took[name] / took["alone, default"] for took in rounds
            ),
        }
        for name in rounds[0]
    }
    print(json.dumps(table, indent=2))
    if given.out:
        given.out.write_text(json.dumps({"rounds": rounds, "table": table}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
