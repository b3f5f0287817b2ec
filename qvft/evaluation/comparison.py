"""Comparison of two evaluations: paired differences, confidence intervals, changed items.

A is this evaluation, B the other. Differences are A minus B.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from qvft.evaluation.evaluation_facts import Part, SettingDifference
from qvft.evaluation.metric import GroupScores
from qvft.evaluation.metric_table import METRICS, known_scores
from qvft.evaluation.pairing import Pairing
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import Scores, main_metric, score, with_groups
from qvft.evaluation.stats import FloatArray, PairedDifference, paired_difference, paired_statistic

DIRECTION = "a minus b: positive where the figure of a, this report's model, is the higher one"
METHOD = (
    "b's texts are scored again, by the definitions of this report, on the items that both have. "
    "Interval: 95 % percentiles of 2000 paired bootstrap draws of whole images: a draw takes the "
    "same images for both. BLEU is computed from the summed counts of each draw; the document "
    "frequencies in CIDEr come from the references and stay those of all compared items. Recalls "
    "and accuracy by prompts are those that the two evaluations found, item by item; they are "
    "left out where one side lacks items, since a recall hangs on every candidate."
)
# Maximum number of unmatched ids named in a report.
NAMED_IDS = 20

# Minimum of a full score: shares of ten answers sum to 1 up to rounding.
_FULL = 1 - 1e-9


class MetricDifference(Part):
    """Difference of a metric that both evaluations have, in its unit (see `units`)."""

    n: int = Field(description="items that it scores")
    a: float = Field(description="this report's model")
    b: float = Field(description="the other")
    difference: float = Field(description="a minus b")
    interval: tuple[float, float] | None = Field(
        description="95 %, of the difference; null with fewer than two images"
    )
    excludes_zero: bool | None = Field(
        description="whether the interval lies on one side of 0; null without an interval"
    )
    changed: int = Field(description="items whose score or counts differ")
    lower_is_better: bool = Field(False, description="a negative difference is the better one")


class ChangedItem(Part):
    """An item with different texts in the two evaluations."""

    id: str = Field(description="as in `predictions.jsonl`")
    change: Literal["better", "worse", "same"] = Field(
        description="how the score moved from b to a: `better` means that a's is higher"
    )
    prediction_a: str = Field(description="this report's model")
    prediction_b: str = Field(description="the other")
    metric: str | None = Field(description="the score that tells most about the item")
    score_a: float = Field(description="its value, as in `predictions.jsonl`")
    score_b: float = Field(description="the other's")


class Comparison(Part):
    """A paired comparison of this evaluation, a, with another one, b, of the same items."""

    name: str = Field(description="b, as it was named after `--against`")
    folder: str | None = Field(None, description="where b's evaluation lies")
    origin: str | None = Field(
        None, description="whether b's evaluation stood there, or was made for this comparison"
    )
    direction: str = Field(DIRECTION, description="what the sign of a difference means")
    method: str = Field(METHOD, description="how figures and intervals come about")
    n: int = Field(description="items compared: those that both have")
    only_in_a: int = Field(0, description="items not compared because b lacks them")
    only_in_b: int = Field(0, description="items not compared because a lacks them")
    left_out_a: list[str] = Field([], description="their ids, the first twenty")
    left_out_b: list[str] = Field([], description="their ids, the first twenty")
    settings: list[SettingDifference] = Field(
        [], description="decoding, data, model type and versions in which the two differ"
    )
    metrics: dict[str, MetricDifference] = Field({}, description="by name")
    units: dict[str, str] = Field({}, description="`percent`, `0..1` or `0..10` by name")
    counts: dict[str, int] = Field(
        {},
        description="`changed` items; of these `better`, `worse` and `same` by score; of the "
        "questions `wrong_to_right` and `right_to_wrong`, from b to a",
    )
    words_a: float | None = Field(None, description="words per text of a, mean over the items")
    words_b: float | None = Field(None, description="of b")
    changed: list[ChangedItem] = Field([], description="items with different texts, in data order")


def compare(
    rows: Sequence[PredictionRow],
    scores: Scores,
    pairing: Pairing,
    *,
    others: Mapping[str, GroupScores] | None = None,
    **fields: object,
) -> Comparison:
    """Compares A's scored rows with B's texts for the same items.

    Args:
        rows: A's, with its predictions. scores: theirs.
        pairing: from `pair`, of the same rows.
        others: B's embedding metrics, by A's row numbers; compared if both have the same items.
        fields: of `Comparison`, those that scores do not know: `name`, `folder`, `settings`, ...
    """
    mine = [rows[index] for index in pairing.here]
    theirs = [replace(row, prediction=text) for row, text in zip(mine, pairing.texts, strict=True)]
    groups = _groups(scores, mine)
    a = scores if len(mine) == len(rows) else score(mine, metrics=groups)
    b = score(theirs, metrics=groups)
    if others and not pairing.only_a and not pairing.only_b:
        b = with_groups(b, others)
    changed = _changed(mine, theirs, a, b)
    metrics = {name: _difference(name, mine, a, b) for name in a.metrics if name in b.metrics}
    return Comparison.model_validate(
        {
            **fields,
            "n": len(mine),
            "only_in_a": len(pairing.only_a),
            "only_in_b": len(pairing.only_b),
            "left_out_a": pairing.only_a[:NAMED_IDS],
            "left_out_b": pairing.only_b[:NAMED_IDS],
            "metrics": metrics,
            "units": {name: a.units[name] for name in metrics},
            "counts": _counts(mine, changed),
            "words_a": _mean_words(mine),
            "words_b": _mean_words(theirs),
            "changed": changed,
        }
    )


def _groups(scores: Scores, rows: Sequence[PredictionRow]) -> list[str]:
    """The metrics of A's texts that still have items of their kind."""
    kinds = {row.kind for row in rows}
    used = {name: METRICS[name] for name in scores.n if name in METRICS}
    return [name for name, metric in used.items() if metric.compared and metric.kind in kinds]


def _difference(name: str, rows: Sequence[PredictionRow], a: Scores, b: Scores) -> MetricDifference:
    scored = [i for i in range(len(rows)) if name in a.per_item[i] or name in b.per_item[i]]
    images = [rows[index].image for index in scored]
    percent = 100 if a.units[name] == "percent" else 1
    if name in a.corpus:
        corpus = a.corpus[name]
        paired = paired_statistic(
            corpus.counts, b.corpus[name].counts, clusters=images, value=corpus.value
        )
    elif all(name in a.per_item[i] and name in b.per_item[i] for i in scored):
        values = ([float(side.per_item[i][name]) for i in scored] for side in (a, b))
        paired = _scaled(paired_difference(*values, clusters=images), percent)
    else:
        # A metric may leave out items depending on the prediction: each side has its own
        # denominator.
        counts = (_sums_and_counts(side, name, scored) for side in (a, b))
        paired = _scaled(paired_statistic(*counts, clusters=images, value=_mean), percent)
    interval = paired.interval
    return MetricDifference(
        n=paired.n,
        a=a.metrics[name],
        b=b.metrics[name],
        difference=paired.difference,
        interval=interval,
        excludes_zero=None if interval is None else interval[0] > 0 or interval[1] < 0,
        changed=len(paired.changed),
        lower_is_better=name in (known := known_scores()) and known[name].lower_is_better,
    )


def _sums_and_counts(scores: Scores, name: str, scored: Sequence[int]) -> FloatArray:
    """(N, 2) an item's score, and 1 where it has one."""
    found = [scores.per_item[index].get(name) for index in scored]
    return np.array([[0.0, 0.0] if value is None else [float(value), 1.0] for value in found])


def _mean(sums: FloatArray) -> FloatArray:
    # A resample without scored items on one side has no mean: NaN.
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _scaled(paired: PairedDifference, factor: float) -> PairedDifference:
    interval = paired.interval
    return replace(
        paired,
        difference=factor * paired.difference,
        interval=None if interval is None else (factor * interval[0], factor * interval[1]),
    )


def _changed(
    mine: Sequence[PredictionRow], theirs: Sequence[PredictionRow], a: Scores, b: Scores
) -> list[ChangedItem]:
    found = []
    for row, other, here, there in zip(mine, theirs, a.per_item, b.per_item, strict=True):
        if row.prediction == other.prediction:
            continue
        metric = main_metric(here)
        score_a, score_b = ((float(side[metric]) if metric else 0.0) for side in (here, there))
        moved: Literal["better", "worse", "same"] = (
            "same" if score_a == score_b else "better" if score_a > score_b else "worse"
        )
        found.append(
            ChangedItem(
                id=row.id,
                change=moved,
                prediction_a=row.prediction,
                prediction_b=other.prediction,
                metric=metric,
                score_a=score_a,
                score_b=score_b,
            )
        )
    return found


def _mean_words(rows: Sequence[PredictionRow]) -> float | None:
    return float(np.mean([len(row.prediction.split()) for row in rows])) if rows else None


def _counts(rows: Sequence[PredictionRow], changed: Sequence[ChangedItem]) -> dict[str, int]:
    moves = Counter(item.change for item in changed)
    questions = {row.id for row in rows if row.kind == "question"}
    right = [
        (item.score_b >= _FULL, item.score_a >= _FULL) for item in changed if item.id in questions
    ]
    return {
        "changed": len(changed),
        "better": moves["better"],
        "worse": moves["worse"],
        "same": moves["same"],
        "wrong_to_right": right.count((False, True)),
        "right_to_wrong": right.count((True, False)),
    }
