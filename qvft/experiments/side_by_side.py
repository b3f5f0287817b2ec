"""The runs of a folder side by side: columns, and the table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.table import Table

from qvft.evaluation.report.table import figure
from qvft.experiments.best_run import best_against_second, ranked, score_columns
from qvft.experiments.differing_keys import differing_keys, short_names
from qvft.experiments.read_runs import ScoreColumn, StoredRun, read_runs
from qvft.progress import duration


class SideBySide(BaseModel):
    """The runs of a folder, the best one first.

    Attributes:
        columns: the cells of all runs by title, the most important first; none without any value.
        differing_keys: key paths in which their recipes differ.
        verdicts: per evaluation, whether the best run differs measurably from the second.
        skipped: folders and reports that were not read, and why.
    """

    folder: Path
    runs: list[StoredRun]
    columns: dict[str, list[str]]
    differing_keys: list[str]
    verdicts: list[str]
    skipped: list[str]


def side_by_side(folder: Path) -> SideBySide:
    """Reads a folder of runs; raises DataError as `read_runs`."""
    runs, skipped = read_runs(folder)
    scores = score_columns(runs)
    runs = ranked(runs, scores[0]) if scores else runs
    first = {score.split: score for score in reversed(scores)}
    verdicts = [best_against_second(runs, score) for score in reversed(first.values())]
    known = [run.recipe for run in runs if run.recipe]
    keys = differing_keys([run.recipe or known[0] for run in runs] if known else [])
    return SideBySide(
        folder=folder,
        runs=runs,
        columns=_columns(runs, scores, keys),
        differing_keys=list(keys),
        verdicts=[one for one in verdicts if one is not None],
        skipped=skipped,
    )


def _columns(
    runs: Sequence[StoredRun], scores: Sequence[ScoreColumn], keys: Mapping[str, Sequence[Any]]
) -> dict[str, list[str]]:
    main: dict[str, list[str]] = {}
    further: dict[str, list[str]] = {}
    several = len({score.split for score in scores}) > 1
    for n, one in enumerate(scores):
        title = f"{one.split} {one.metric}" if several else one.metric
        is_first = n == 0 or scores[n - 1].split != one.split
        (main if is_first else further)[title.replace("_", " ")] = [
            _score(run, one) for run in runs
        ]
    short = short_names(list(keys))
    memory = [run.peak_memory_gb for run in runs]
    found = {
        "status": [run.status for run in runs],
        **main,
        "best eval loss": [_best_loss(run) for run in runs],
        "time": ["" if run.seconds is None else duration(run.seconds) for run in runs],
        "memory": ["" if value is None else f"{value:.1f} GB" for value in memory],
        **{short[key]: [_shown(value) for value in values] for key, values in keys.items()},
        **further,
    }
    return {title: cells for title, cells in found.items() if any(cells)}


def _score(run: StoredRun, column: ScoreColumn) -> str:
    value = run.score(column)
    if value is None:
        return ""
    text = figure(value, column.unit)
    ends = run.evaluations[column.split].intervals.get(column.metric, ())
    inner = " to ".join(figure(end, column.unit) for end in ends).replace(" %", "")
    return f"{text} ({inner})" if inner else text


def _best_loss(run: StoredRun) -> str:
    known = [(point.eval_loss, point.step) for point in run.curve if point.eval_loss is not None]
    return "{:.3f} (step {:,})".format(*min(known)) if known else ""


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def runs_table(found: SideBySide, *, width: int) -> Table:
    """The table for a terminal of that many characters; what has no room is left to the page."""
    numbers = [f"#{n + 1}" for n in range(len(found.runs))]
    columns: dict[str, Sequence[str]] = {"": numbers, "run": [run.name for run in found.runs]}
    room = width
    for title, cells in [*columns.items(), *found.columns.items()]:
        room -= 3 + max(map(len, (title, *cells)))
        if room >= 0 or len(columns) < 4:
            columns[title] = cells
    left_out = len(found.columns) + 2 - len(columns)
    table = Table(
        title=f"{found.folder}: {len(found.runs)} run{'s' * (len(found.runs) > 1)}",
        title_justify="left",
        caption=f"{left_out} more columns are in the page" if left_out else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for title in columns:
        table.add_column(title, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table
