"""`Metric`: what it scores, how, and how reports show it.

Items are scored on a scale of 0 to 1 (CIDEr 0 to 10); a value in percent is 100 times the mean.
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
    """What a score is computed from that is not the mean of its items.

    Attributes:
        counts: (n, K) of each item.
        value: from sums over items (..., K) to the score (...), in its unit.
    """

    counts: FloatArray
    value: Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class ScoreValue:
    """A score over items, with what each of them got.

    `items` holds the score by row number; `interval` is in the unit of `value`; `corpus`, whose
    rows are those of `items`, is None where the value is the mean of the items' scores.
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
    """The scores that a metric gives, how many items it scored, and their further outcomes."""

    n: int
    metrics: list[ScoreValue]
    outcomes: dict[int, dict[str, str]] = field(default_factory=dict)


Group = Callable[[Sequence[PredictionRow], Sequence[int]], GroupScores]
"""From all rows and the numbers of those to score to the scores of a metric."""

ItemScores = Callable[[PredictionRow], Mapping[str, float | str | None]]
"""From a row to its scores by name: a number counts, None is left out, a text is an outcome."""


@dataclass(frozen=True)
class ScoreInfo:
    """One score of a metric, and where reports show it.

    Attributes:
        name: in `report.json`.
        unit: the scale of its value.
        definition: name/version and one sentence.
        label: in `report.html`; None for the name with blanks.
        main: rank among the scores that represent an item (`main_metric`); None: it never does.
        table: rank in the printed table; None: it is not in it.
        page: rank among the large figures of `report.html`; None: it is not one.
        card: rank of the line of an item's card that it stands in; None: on no card.
        breakdown: its mean is given for each value of `breakdowns`.
        lower_is_better: for the verdict of a comparison.
    """

    name: str
    unit: Unit = "percent"
    definition: str = ""
    label: str | None = None
    main: int | None = None
    table: int | None = LATE
    page: int | None = LATE
    card: int | None = None
    breakdown: bool = False
    lower_is_better: bool = False

    @property
    def highest(self) -> int:
        """What a perfect item has."""
        return 10 if self.unit == "0..10" else 1


@dataclass(frozen=True)
class Metric:
    """What `eval.metrics` can name.

    Attributes:
        name: in `eval.metrics`; a metric of another package is named by where it is defined.
        kind: of texts that it scores.
        function: from rows to scores, see `by_item`.
        scores: that it gives, some of them only where items have them.
        auto: whether `auto` takes it for texts of its kind; None: never.
        misfit: why it cannot score texts of its kind; None: it can score any.
        compared: another evaluation's texts are scored with it too (`--against`).
        require_installed: raises MissingToolError where a program that it needs is missing.
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
    """Means over the items that have a score, in the order of `scores`, with their intervals."""

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
    """The mean of the items' scores, by row number, with the interval over images.

    Args:
        definition: in place of the score's own.
    """
    factor = 100 if score.unit == "percent" else 1
    values = list(items.values())
    interval = bootstrap_mean(values, [rows[index].image for index in items])
    scaled = None if interval is None else (factor * interval[0], factor * interval[1])
    value = factor * sum(values) / len(values)
    written = score.definition if definition is None else definition
    return ScoreValue(score.name, score.unit, written, value, items, scaled)
