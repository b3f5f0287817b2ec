"""Table of metrics that `eval.metrics` can name; a new metric is a row of its group's file.

A metric of another package is given by the dotted name of its `Metric` (`my_package.my_metric`), or
added with `register_metric`.
"""

from __future__ import annotations

from collections.abc import Sequence

from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import DataError, RecipeError
from qvft.evaluation.caption_metrics import CAPTION_METRICS
from qvft.evaluation.embedding_metrics import SUFFIXES, WAYS, ZERO_SHOT_NAME, recall_name
from qvft.evaluation.likelihoods import LIKELIHOOD_SCORES
from qvft.evaluation.metric import Metric, ScoreInfo
from qvft.evaluation.question_metrics import QUESTION_METRICS
from qvft.evaluation.rows import PredictionRow

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*CAPTION_METRICS, *QUESTION_METRICS)
}

# Scores from embeddings, not texts: computed by `embedding_metrics`.
EMBEDDING_SCORES = tuple(
    ScoreInfo(name, table=13 + place, page=None)
    for place, name in enumerate(
        (*(recall_name(way, 1, suffix) for suffix in SUFFIXES for way in WAYS), ZERO_SHOT_NAME)
    )
)
FROM_MODEL = (EMBEDDING_SCORES, LIKELIHOOD_SCORES)


def register_metric(metric: Metric) -> Metric:
    """Adds a metric that `eval.metrics` can then name; returns it.

    Raises:
        ValueError: the name, or that of one of its scores, is taken by another metric.
    """
    _require_new_names(metric)
    METRICS[metric.name] = metric
    return metric


def _require_new_names(metric: Metric) -> None:
    if METRICS.get(metric.name, metric) is not metric:
        raise ValueError(f"a metric is called {metric.name!r} already")
    others = [other for other in METRICS.values() if other is not metric]
    taken = {score.name for other in others for score in other.scores}
    for score in metric.scores:
        if score.name in taken:
            raise ValueError(f"another metric gives the score {score.name!r} already")


def find_metric(name: str) -> Metric:
    """The metric of this name; a dotted name is imported and added to the table.

    Raises:
        RecipeError: unknown metric.
    """
    if name not in METRICS and is_dotted(name):
        found = import_dotted(name, Metric, where="eval.metrics")
        try:
            _require_new_names(found)
        except ValueError as error:
            raise RecipeError(f'"{name}": {error}', where="eval.metrics") from error
        METRICS[name] = found
    if name not in METRICS:
        raise RecipeError(
            f'"{name}"',
            where="eval.metrics",
            expected=f"some of auto, retrieval, {', '.join(METRICS)}, package.module.name",
        )
    return METRICS[name]


def known_scores() -> dict[str, ScoreInfo]:
    """Every score by name, in the order of the table."""
    by_metric = (metric.scores for metric in METRICS.values())
    return {score.name: score for scores in (*by_metric, *FROM_MODEL) for score in scores}


def misfit(rows: Sequence[PredictionRow], metric: Metric) -> DataError | None:
    """Why a metric cannot score these items; None if it can."""
    named = f"metrics {metric.name!r}"
    chosen = [row for row in rows if row.kind == metric.kind]
    if not chosen:
        return DataError(
            f"{named} for data without {metric.kind}s", do="name other metrics, or auto"
        )
    problem = metric.misfit(chosen) if metric.misfit is not None else None
    if problem is None:
        return None
    return DataError(f"{named}: {problem.given}", expected=problem.expected, do=problem.do)
