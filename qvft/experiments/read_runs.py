"""Reads the runs of a folder from their files: recipe, status, losses, scores. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from qvft.errors import BusyError, DataError, UserError
from qvft.evaluation.report.loss_chart import LossPoint
from qvft.json_files import complete_lines, read_json
from qvft.locks import LOCK, inside
from qvft.recipe.recipe_lock import LOCK_NAME, read_lock
from qvft.recipe.section import leaves
from qvft.training.run_folder import is_finished

RECORD = "sweep.json"
"""File of `qvft sweep` in each run folder: exit statuses, last line of a failed program."""


class ScoreColumn(NamedTuple):
    """A metric of an evaluation, DATASET-SPLIT."""

    split: str
    metric: str
    unit: str


class Evaluation(BaseModel):
    """The part of a `report.json` that is shown; fields as in `Report`."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}
    units: dict[str, str] = {}


class StoredRun(BaseModel):
    """A run as its files have it.

    Attributes:
        name: its path below the folder of runs.
        recipe: value by key path; empty if it failed before its recipe was written.
        status: finished, running, stopped at a step, or failed, with the reason.
        curve: losses by step, counted through all phases.
        seconds: of training, without pauses; None if nothing was logged.
        peak_memory_gb: None if it was not recorded.
        evaluations: by name, DATASET-SPLIT.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    status: str
    curve: list[LossPoint]
    seconds: float | None
    peak_memory_gb: float | None
    evaluations: dict[str, Evaluation]

    def score(self, column: ScoreColumn) -> float | None:
        """Its value of a metric; None if it has none."""
        found = self.evaluations.get(column.split)
        return None if found is None else found.metrics.get(column.metric)


def read_runs(folder: Path) -> tuple[list[StoredRun], list[str]]:
    """The runs in a folder and in the folders in it, by name; what was skipped, and why.

    Raises:
        DataError: no such folder, or it holds no run.
    """
    runs, skipped = [], []
    for child in _folders(folder):
        below = [child] if _is_run(child) else [one for one in _folders(child) if _is_run(one)]
        if not below:
            skipped.append(f"{child.name}: no run (no {LOCK_NAME})")
        for one in below:
            name = one.relative_to(folder).as_posix()
            try:
                runs.append(_read_run(one, name, skipped))
            except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
                known = isinstance(error, UserError | OSError)
                skipped.append(f"{name}: {error if known else 'metrics.jsonl is damaged'}")
    if not runs:
        do = "name the folder that holds the run folders, e.g. runs"
        raise DataError("holds no run", where=str(folder), expected="run folders in it", do=do)
    return runs, skipped


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), expected="a folder of runs")
    return sorted(one for one in folder.iterdir() if one.is_dir() and one.name[0] != ".")


def _is_run(folder: Path) -> bool:
    return (folder / LOCK_NAME).is_file() or (folder / RECORD).is_file()


def _read_run(folder: Path, name: str, skipped: list[str]) -> StoredRun:
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    has_lock = (folder / LOCK_NAME).is_file()
    rows = complete_lines(folder / "metrics.jsonl")
    curve, seconds = _logged(rows)
    message = str(record.get("message"))[:80]
    failed = f"failed: {message}" if record.get("train") else None
    status = failed or f"stopped at step {curve[-1].step if curve else 0:,}"
    if is_finished(folder):
        status = f"finished, eval failed: {message}" if record.get("eval") else "finished"
    elif _is_locked(folder):
        status = status.replace("stopped", "running")
    evaluations = {}
    for path in sorted(folder.glob("eval/*/report.json")):
        try:
            evaluations[path.parent.name] = Evaluation.model_validate(read_json(path))
        except (DataError, ValidationError):
            skipped.append(f"{name}/eval/{path.parent.name}: report.json is damaged")
    memory = [row["peak_memory_gb"] for row in rows if "peak_memory_gb" in row]
    return StoredRun(
        name=name,
        folder=folder,
        recipe=dict(leaves(read_lock(folder).model_dump(mode="json"))) if has_lock else {},
        status=status,
        curve=curve,
        seconds=seconds,
        peak_memory_gb=max(memory, default=None),
        evaluations=evaluations,
    )


def _logged(rows: Sequence[Mapping[str, Any]]) -> tuple[list[LossPoint], float | None]:
    """Losses and seconds of training. Steps begin anew in each phase, seconds in each process."""
    phase, before, step, last, total = None, 0, 0, 0.0, 0.0
    curve = []
    for row in rows:
        if row["phase"] != phase:
            phase, before = row["phase"], step
        total += last if row["seconds"] < last else 0.0
        last, step = row["seconds"], before + row["step"]
        losses = {key: row[key] for key in ("loss", "eval_loss") if key in row}
        curve.append(LossPoint(step=step, **losses))
    return curve, total + last if rows else None


def _is_locked(folder: Path) -> bool:
    try:
        if (folder / LOCK).is_file():
            with inside(folder):
                pass
    except BusyError:
        return True
    return False
