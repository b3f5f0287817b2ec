"""Scores predictions: applicable metrics, values, confidence intervals, breakdowns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from qvft.errors import DataError
from qvft.evaluation.breakdowns import Breakdowns, break_down, count_outputs
from qvft.evaluation.metric import CorpusCounts, GroupScores
from qvft.evaluation.metric_table import METRICS, find_metric, known_scores, misfit
from qvft.evaluation.rows import PredictionRow, prediction_rows

if TYPE_CHECKING:
    from qvft.inference.sampled import Sampled


@dataclass(frozen=True)
class Scores:
    """Scores of a set of predictions.

    Attributes:
        n: items by group of metrics, and `all`.
        metrics: value by name, in the unit that `units` states.
        intervals: 95 % bootstrap interval by name, where there are two images or more.
        units: `percent`, `0..1` or `0..10` by name: the official scale.
        definitions: name/version and one sentence by name.
        breakdowns: by key, one entry per value: `value`, `n`, and the means of its items.
        per_item: parallel to the rows; by name the item's score, or its parsed answer.
        counts: empty predictions, different predictions, share of the most common one (percent),
            yes/no answers that are unparseable, or undecided wherever they say it.
        corpus: by name, for figures that are not the mean of their items (BLEU): the counts of
            the items that have that score, in the order of the rows.
    """

    n: dict[str, int]
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    breakdowns: Breakdowns = field(default_factory=dict)
    per_item: list[dict[str, float | str]] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    corpus: dict[str, CorpusCounts] = field(default_factory=dict)


def score(
    rows: Sequence[PredictionRow], *, metrics: Sequence[str] | Literal["auto"] = "auto"
) -> Scores:
    """Scores predictions with the given metrics, of `metric_table.METRICS` or by dotted name.

    `auto` takes `captions` for captions and for questions `answers`, with `medical` where the data
    says closed or open, and `vqa_2017` where every question has ten answers. Intervals draw whole
    images.

    Raises:
        RecipeError: an unknown metric.
        DataError: an item without references, a VQA group for questions that
            have not got ten answers, or a group to which no item belongs.
    """
    for row in rows:
        if not row.references:
            raise DataError(f"item {row.id!r} has no references", expected="at least one")
    names = metric_names(rows, metrics)
    scores = Scores(n={"all": len(rows)}, per_item=[{} for _ in rows])
    for name in names:
        metric = find_metric(name)
        problem = misfit(rows, metric)
        if problem is not None:
            raise problem
        chosen = [index for index, row in enumerate(rows) if row.kind == metric.kind]
        _add(scores, name, metric.function(rows, chosen))
    scores.breakdowns.update(break_down(rows, scores.per_item))
    scores.counts.update(count_outputs(rows, scores.per_item))
    return scores


def metric_names(
    rows: Sequence[PredictionRow], metrics: Sequence[str] | Literal["auto"]
) -> list[str]:
    """The given metrics with `auto` expanded, without duplicates."""
    named = [metrics] if isinstance(metrics, str) else metrics
    found = (applicable_groups(rows) if name == "auto" else [name] for name in named)
    return list(dict.fromkeys(name for names in found for name in names))


def applicable_groups(rows: Sequence[PredictionRow]) -> list[str]:
    """The metrics of `auto`."""
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in ("caption", "question")}
    return [
        name
        for name, metric in METRICS.items()
        if metric.auto is not None and by_kind[metric.kind] and metric.auto(by_kind[metric.kind])
    ]


def main_scores() -> list[str]:
    """Names of the scores that may represent an item, most informative first."""
    ranks = {name: s.main for name, s in known_scores().items() if s.main is not None}
    return sorted(ranks, key=ranks.__getitem__)


def main_metric(scores: Mapping[str, float | str]) -> str | None:
    """Name of an item's most informative score; None if it has none."""
    return next((name for name in main_scores() if name in scores), None)


def main_score(scores: Mapping[str, float | str]) -> float:
    """The item's most informative score, from 0 to 1; 0 if it has none."""
    name = main_metric(scores)
    return 0.0 if name is None else float(scores[name]) / known_scores()[name].highest


def with_groups(scores: Scores, groups: Mapping[str, GroupScores]) -> Scores:
    """A copy of the scores with these groups added."""
    found = deepcopy(scores)
    for name, group in groups.items():
        _add(found, name, group)
    return found


def text_scores(texts: Sequence[Sampled]) -> dict[str, float]:
    """The scores that a report of texts generated while training would have with `eval.metrics:
    auto`, in their units: those of its page of which the highest is the best.
    """
    rows = prediction_rows([text.row for text in texts], [text.text for text in texts])
    known = known_scores()
    return {
        name: value
        for name, value in score(rows).metrics.items()
        if known[name].page is not None and not known[name].lower_is_better
    }


def _add(scores: Scores, name: str, group: GroupScores) -> None:
    scores.n[name] = group.n
    for metric in group.metrics:
        scores.metrics[metric.name] = metric.value
        scores.units[metric.name] = metric.unit
        scores.definitions[metric.name] = metric.definition
        if metric.corpus is not None:
            scores.corpus[metric.name] = metric.corpus
        if metric.interval is not None:
            scores.intervals[metric.name] = metric.interval
        for index, value in metric.items.items():
            scores.per_item[index][metric.name] = value
    for index, outcome in group.outcomes.items():
        scores.per_item[index].update(outcome)
