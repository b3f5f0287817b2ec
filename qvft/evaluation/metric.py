"""`Metric`: what it scores, how, and how reports show it.

Item scores are 0 to 1 (CIDEr 0 to 10); a value in percent is 100 times their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from qvft.errors import DataError
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.stats import FloatArray, bootstrap_mean

Unit = Literal["percent", "0..1", "0..10"]
# Ranks of a score that names none: behind the built-in ones, before those shown only if alone.
LATE = 50


@dataclass(frozen=True)
class CorpusCounts:
    """Counts of a corpus score that is not the mean of its items.

    Attributes:
        counts: (n, K) counts per item.
        value: sums over items (..., K) to the score (...), in its unit.
    """

    counts: FloatArray
    value: Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class ScoreValue:
    """A score over items, with the items' scores.

    `items` has scores by row number; `interval` is in the unit of `value`; `corpus`, with the rows
    of `items`, is None if the value is the mean of the items' scores.
    """

    name: str
    unit: Unit
    definition: str
    value: float
    items: Mapping[int, float]
    interval: tuple[float, float] | None
    corpus: CorpusCounts | None = None


@dataclass(frozen=True)
class GroupScores:
    """Scores of a metric, the number of scored items, and their other outcomes."""

    n: int
    metrics: list[ScoreValue]
    outcomes: Mapping[int, Mapping[str, float | str]] = field(default_factory=dict)


Group = Callable[[Sequence[PredictionRow], Sequence[int]], GroupScores]
"""Scores of a metric, from all rows and the numbers of those to score."""

ItemScores = Callable[[PredictionRow], Mapping[str, float | str | None]]
"""Scores of a row by name: a number, None (left out), or a text (an outcome)."""


@dataclass(frozen=True)
class ScoreInfo:
    """One score of a metric, and its display in reports.

    Attributes:
        name: name in `report.json`.
        unit: scale of its value.
        definition: name/version and one sentence.
        label: label in `report.html`; None: the name with spaces.
        main: rank among the scores that represent an item (`main_metric`); None: never.
        table: rank in the printed table; None: not in it.
        page: rank among the headline scores of `report.html`; None: not one.
        breakdown: whether `breakdowns` include its mean.
        lower_is_better: for the verdict of a comparison.
    """

    name: str
    unit: Unit = "percent"
    definition: str = ""
    label: str | None = None
    main: int | None = None
    table: int | None = LATE
    page: int | None = LATE
    breakdown: bool = False
    lower_is_better: bool = False

    @property
    def highest(self) -> int:
        """Score of a perfect item."""
        return 10 if self.unit == "0..10" else 1


@dataclass(frozen=True)
class Metric:
    """A metric that `eval.metrics` can name.

    Attributes:
        name: name in `eval.metrics`; a metric of another package is given by its dotted name.
        kind: kind of texts that it scores.
        function: computes scores from rows, see `by_item`.
        scores: its scores, some only for items that have them.
        auto: whether `auto` includes it for texts of its kind; None: never.
        misfit: returns why it cannot score given texts; None: it can score any.
        compared: whether it is also computed for the other evaluation (`--against`).
        require_installed: raises MissingToolError if a needed program is missing.
    """

    name: str
    kind: Literal["caption", "question"]
    function: Group
    scores: tuple[ScoreInfo, ...]
    auto: Callable[[Sequence[PredictionRow]], bool] | None = None
    misfit: Callable[[Sequence[PredictionRow]], DataError | None] | None = None
    compared: bool = True
    require_installed: Callable[[], object] | None = None


def by_item(score_item: ItemScores, scores: Sequence[ScoreInfo]) -> Group:
    """Means over the items with a score, in the order of `scores`, with confidence intervals."""

    def group(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
        scored = {index: score_item(rows[index]) for index in chosen}
        metrics = []
        for score in scores:
            found = {index: values.get(score.name) for index, values in scored.items()}
            items = {i: value for i, value in found.items() if isinstance(value, int | float)}
            if items:
                metrics.append(mean_score(rows, score, items))
        outcomes = {
            index: {name: text for name, text in values.items() if isinstance(text, str)}
            for index, values in scored.items()
        }
        return GroupScores(len(chosen), metrics, outcomes)

    return group


def mean_score(
    rows: Sequence[PredictionRow],
    score: ScoreInfo,
    items: Mapping[int, float],
    *,
    definition: str | None = None,
) -> ScoreValue:
    """Mean of the items' scores, by row number, with the confidence interval over images.

    Args:
        definition: replaces the score's own.
    """
    factor = 100 if score.unit == "percent" else 1
    values = list(items.values())
    interval = bootstrap_mean(values, [rows[index].image for index in items])
    scaled = None if interval is None else (factor * interval[0], factor * interval[1])
    value = factor * sum(values) / len(values)
    written = score.definition if definition is None else definition
    return ScoreValue(score.name, score.unit, written, value, items, scaled)
