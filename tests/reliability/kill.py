"""Kills the programs at random moments, starts them again, and compares with an undisturbed run.

    python tests/reliability/kill.py [--kills 100] [--seed 0] [--stages train,cache] [--json F]

Training in two phases (accumulation, dropout, best checkpoint, early stopping), the pass of the
feature cache, evaluation, prediction and merging each work on small images of their own. A round
starts a stage again after every kill until it has ended by itself; what it leaves must then equal,
byte by byte, what an undisturbed process leaves. Moments are drawn from the seed: half are counted
in changes of files, so that they fall into saving, half in seconds. Exit status 1 where a round
ended otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # no threads before the fork

from kill_stages import Stage, make_data, stages
from killing import Ended, Moment, drawn_moment, started, watched

NAMES = ("train", "cache", "eval", "predict", "merge")
ROUND = 8
"""Kills of a round at most; then it may end."""


@dataclass
class Counted:
    """What became of a stage.

    Attributes:
        rounds: that were ended.
        kills: SIGKILLs that met a running process.
        while_writing: of these, where something half-written was on the disk.
        lost: rounds that a later start could not bring to an end.
        differing: rounds that ended otherwise than undisturbed.
    """

    rounds: int = 0
    kills: int = 0
    while_writing: int = 0
    lost: int = 0
    differing: int = 0
    notes: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kills; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="in all, shared by the stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default=",".join(NAMES), help="default: all of them")
    parser.add_argument("--json", type=Path, help="file for the counts")
    given = parser.parse_args(arguments)
    names = given.stages.split(",")
    _import_all()
    with tempfile.TemporaryDirectory() as work:
        counts = killed(Path(work), names, kills=given.kills, seed=given.seed)
    if given.json:
        content = {"seed": given.seed, **{name: asdict(one) for name, one in counts.items()}}
        given.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(one.lost or one.differing for one in counts.values()))


def killed(work: Path, names: Sequence[str], *, kills: int, seed: int) -> dict[str, Counted]:
    """The counts of each stage; files lie in `work`."""
    os.environ["QVFT_CACHE"] = str(work / "cache")
    recipe = _in_child(work)
    run = work / "reference-train" / "work" / "run"
    all_stages = stages(recipe, run)
    counts = {}
    for name in NAMES:
        if name not in names and name != "train":
            continue
        stage, whole = all_stages[name], work / f"reference-{name}"
        took = _start(stage, whole, None)
        assert took.status == 0, (whole / "log").read_text()
        if name in names:
            share = -(-kills // len(names))
            counts[name] = _rounds(stage, work, whole, took, kills=share, seed=seed)
    return counts


def _rounds(
    stage: Stage, work: Path, whole: Path, took: Ended, *, kills: int, seed: int
) -> Counted:
    draw, counted = random.Random(f"{stage.name}{seed}"), Counted()
    expected = _result(stage, whole)
    while counted.kills < kills:
        folder = work / f"{stage.name}-{counted.rounds}"
        most, begun = min(ROUND, kills - counted.kills), counted.kills
        ended = None
        while not stage.done(folder):
            moment = drawn_moment(draw, changes=took.changes, seconds=took.seconds)
            ended = _start(stage, folder, moment if counted.kills - begun < most else None)
            if ended.status is not None:
                break
            counted.kills += 1
            counted.while_writing += _half_written(folder)
        counted.rounds += 1
        if ended is not None and ended.status:
            counted.lost += 1
            counted.notes.append((folder / "log").read_text()[-2000:])
        elif (found := _result(stage, folder)) != expected:
            counted.differing += 1
            keys = [key for key in expected | found if expected.get(key) != found.get(key)]
            counted.notes.append(f"round {counted.rounds}: {keys}")
        print(stage.name, asdict(counted), flush=True)
    return counted


def _start(stage: Stage, folder: Path, moment: Moment | None) -> Ended:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    child = started(lambda: stage.start(folder / "work"), folder / "log")
    return watched(child, folder / "work", moment)


def _result(stage: Stage, folder: Path) -> dict:
    return stage.result(folder / "work")


def _half_written(folder: Path) -> bool:
    return any(path.name.endswith(".partial") for path in (folder / "work").rglob(".*"))


def _in_child(work: Path) -> Path:
    """The recipe of `make_data`, made in a process of its own: this one must not use torch."""
    data = work / "data"
    data.mkdir()

    def make() -> int:
        make_data(data)
        return 0

    ended = watched(started(make, work / "log"), data, None)
    assert ended.status == 0, (work / "log").read_text()
    return data / "recipe.yaml"


def _import_all() -> None:
    """What the programs import: in a fork it would take more time than what they do."""
    import qvft.evaluation.evaluate
    import qvft.inference.predict
    import qvft.training.phases
    import qvft.training.prepare_training
    import qvft.weights.merge  # noqa: F401


if __name__ == "__main__":
    begun = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begun:.0f} s", flush=True)
    sys.exit(status)
