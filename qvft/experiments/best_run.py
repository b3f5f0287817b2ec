"""Runs ranked by score, and whether the best one differs measurably from the second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from qvft.errors import DataError
from qvft.evaluation.metric_table import known_scores
from qvft.evaluation.pairing import pair
from qvft.evaluation.report.table import figure, headline, signed, signed_ends
from qvft.evaluation.scoring import main_metric
from qvft.evaluation.stats import PairedDifference, paired_difference
from qvft.evaluation.stored_evaluation import read_evaluation
from qvft.experiments.read_runs import ScoreColumn, StoredRun


def score_columns(runs: Sequence[StoredRun]) -> list[ScoreColumn]:
    """Per evaluation its most telling metric and up to two others of a short table.

    The evaluation that most runs have comes first.
    """
    columns = []
    for split, _ in Counter(split for run in runs for split in run.evaluations).most_common():
        found = [run.evaluations[split] for run in runs if split in run.evaluations]
        units = {name: one.units.get(name, "") for one in found for name in one.metrics}
        values = dict.fromkeys(units, 0.0)
        names = dict.fromkeys([main_metric(values) or next(iter(units)), *headline(values)])
        columns += [ScoreColumn(split, name, units[name]) for name in list(names)[:3]]
    return columns


def ranked(runs: Sequence[StoredRun], column: ScoreColumn) -> list[StoredRun]:
    """Runs from the best to the worst; those without that score come last."""
    score = known_scores().get(column.metric)
    sign = 1 if score is not None and score.lower_is_better else -1
    values = {run.name: run.score(column) for run in runs}
    return sorted(runs, key=lambda run: (values[run.name] is None, sign * (values[run.name] or 0)))


def best_against_second(runs: Sequence[StoredRun], column: ScoreColumn) -> str | None:
    """A sentence about the two best runs, from their stored rows; None with fewer than two."""
    scored = [run for run in ranked(runs, column) if run.score(column) is not None]
    if len(scored) < 2:
        return None
    best, second = scored[:2]
    here, there = (figure(run.score(column), column.unit) for run in (best, second))
    name = column.metric.replace("_", " ")
    begins = f"{column.split}: {best.name} has the best {name}, {here}; {second.name} has {there}. "
    try:
        found = _paired(best, second, column)
    except DataError as error:
        return f"{begins}Whether they differ cannot be told: {error.given}."
    if found.interval is None:
        return f"{begins}Whether they differ cannot be told from one image."
    ends = signed_ends(found.interval, column.unit)
    numbers = f"{signed(found.difference, column.unit)} (95 % interval, paired, {ends})"
    if found.interval[0] <= 0 <= found.interval[1]:
        return f"{begins}Which of the two is better cannot be told: the difference is {numbers}."
    return f"{begins}They differ measurably: {numbers}."


def _paired(a: StoredRun, b: StoredRun, column: ScoreColumn) -> PairedDifference:
    """The difference over the same rows in the metric's unit; raises DataError if they differ."""
    one, other = (read_evaluation(run.folder / "eval" / column.split) for run in (a, b))
    found = pair(one.rows, other.rows, where=str(other.folder))
    definitions = [side.content.get("definitions", {}).get(column.metric) for side in (one, other)]
    if found.only_a or found.only_b or definitions[0] != definitions[1]:
        raise DataError("other rows, or another definition of the metric")
    factor = 100 if column.unit == "percent" else 1
    b_scores = {row.id: scores for row, scores in zip(other.rows, other.scores, strict=True)}
    scored = [
        (row.image, scores[column.metric], b_scores[row.id][column.metric])
        for row, scores in zip(one.rows, one.scores, strict=True)
        if column.metric in scores and column.metric in b_scores[row.id]
    ]
    if not scored:
        raise DataError("no row has a score of its own")
    images, *sides = zip(*scored, strict=True)
    values = ([factor * float(value) for value in side] for side in sides)
    return paired_difference(*values, clusters=images)
