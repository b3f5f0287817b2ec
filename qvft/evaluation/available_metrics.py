"""Checks `eval.metrics`: known, installed, and fit for data and model. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.evaluation.embedding_metrics import RETRIEVAL
from qvft.evaluation.metric import Metric
from qvft.evaluation.metric_table import find_metric, misfit
from qvft.evaluation.rows import PredictionRow, prediction_rows
from qvft.setup.itc_heads import retrieves
from qvft.setup.resolve_model import ResolvedModel


def require_known_metrics(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names, without `auto` and `retrieval`.

    Raises:
        RecipeError: an unknown metric.
    """
    return [find_metric(name) for name in names if name not in ("auto", RETRIEVAL)]


def require_installed_metrics(names: Sequence[str]) -> None:
    """Raises RecipeError for an unknown metric, MissingToolError if one's program is missing."""
    for metric in require_known_metrics(names):
        if metric.require_installed is not None:
            metric.require_installed()


def require_fitting_metrics(names: Sequence[str], asked: Sequence[PredictionRow]) -> None:
    """Raises RecipeError if a metric cannot score the data, with the first such item."""
    for metric in require_known_metrics(names):
        problem = misfit(asked, metric)
        if problem is not None:
            raise RecipeError(
                problem.given, where="eval.metrics", expected=problem.expected, do=problem.do
            )


def fitting_metrics(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Those of the names that can score these rows, of one of several sources."""
    asked, found = prediction_rows(rows), []
    for name in names:
        if name == RETRIEVAL:
            fits = any(row.kind == "caption" for row in rows)
        else:
            fits = name == "auto" or misfit(asked, find_metric(name)) is None
        found += [name] if fits else []
    return found


def require_metrics(opened: ResolvedModel, rows: Sequence[Row]) -> None:
    """Raises RecipeError if data or model do not fit the metrics in `eval.metrics`."""
    require_fitting_metrics(opened.recipe.eval.metrics, prediction_rows(rows))
    wants_retrieval(opened, rows)


def wants_retrieval(opened: ResolvedModel, rows: Sequence[Row]) -> bool:
    """Whether retrieval is evaluated; `auto` includes it if there are ITC heads and captions.

    Raises:
        RecipeError: it is requested, and one of these is missing.
    """
    names = opened.recipe.eval.metrics
    if RETRIEVAL not in names and "auto" not in names:
        return False
    has_heads, has_captions = retrieves(opened), any(row.kind == "caption" for row in rows)
    if RETRIEVAL in names and not has_heads:
        raise RecipeError(
            f'"{RETRIEVAL}" of a model without contrast heads',
            where="eval.metrics",
            expected="a run with itc among its objectives",
        )
    if RETRIEVAL in names and not has_captions:
        raise RecipeError(f'"{RETRIEVAL}" without captions', where="eval.metrics")
    return has_heads and has_captions
