"""Which metrics are available for an evaluation. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.evaluation.embedding_metrics import RETRIEVAL
from qvft.evaluation.metric_table import find_metric, misfit
from qvft.evaluation.rows import PredictionRow
from qvft.setup.itc_heads import retrieves
from qvft.setup.resolve_model import ResolvedModel

_NOT_IN_TABLE = ("auto", RETRIEVAL)


def require_metrics(opened: ResolvedModel, rows: Sequence[Row]) -> None:
    """Checks that data and model support the metrics in `eval.metrics`."""
    names = opened.recipe.eval.metrics
    require_installed_metrics(names)
    require_fitting_metrics(names, prediction_rows(rows))
    wants_retrieval(opened, rows)


def wants_retrieval(opened: ResolvedModel, rows: Sequence[Row]) -> bool:
    """Whether retrieval is evaluated; `auto` includes it if there are ITC heads and captions.

    Raises:
        RecipeError: it is requested, and one of these is missing.
    """
    named = RETRIEVAL in opened.recipe.eval.metrics
    if not named and "auto" not in opened.recipe.eval.metrics:
        return False
    possible = retrieves(opened)
    if named and not possible:
        raise RecipeError(
            f'"{RETRIEVAL}" of a model without contrast heads',
            where="eval.metrics",
            expected="a run with itc among its objectives",
        )
    captioned = any(row.kind == "caption" for row in rows)
    if named and not captioned:
        raise RecipeError(f'"{RETRIEVAL}" without captions', where="eval.metrics")
    return possible and captioned


def prediction_rows(rows: Sequence[Row], texts: Sequence[str] | None = None) -> list[PredictionRow]:
    """Rows with their predictions, which are empty unless given."""
    return [
        PredictionRow(
            row.id,
            row.sample.image.name,
            row.kind,
            row.question,
            text,
            row.references,
            row.meta,
        )
        for row, text in zip(rows, texts or [""] * len(rows), strict=True)
    ]


def require_fitting_metrics(names: Sequence[str], asked: Sequence[PredictionRow]) -> None:
    """Checks that the data fits each group of metrics.

    Raises:
        RecipeError: it does not; the message names the group and an item that it cannot score.
    """
    for name in names:
        problem = misfit(asked, name) if name not in _NOT_IN_TABLE else None
        if problem is not None:
            raise RecipeError(
                problem.given, where="eval.metrics", expected=problem.expected, do=problem.do
            )


def fitting_metrics(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Those of the names that can score these rows, of one of several sources."""
    asked = prediction_rows(rows)
    captioned = any(row.kind == "caption" for row in rows)
    return [
        name
        for name in names
        if (name != RETRIEVAL or captioned)
        and (name in _NOT_IN_TABLE or misfit(asked, name) is None)
    ]


def require_known_metrics(names: Sequence[str]) -> None:
    """Checks the names in `eval.metrics`.

    Raises:
        RecipeError: an unknown metric.
    """
    for name in names:
        if name not in _NOT_IN_TABLE:
            find_metric(name)


def require_installed_metrics(names: Sequence[str]) -> None:
    """Checks the names in `eval.metrics`, and that programs needed by some are installed.

    Raises:
        RecipeError: an unknown metric.
        MissingToolError: one is not installed.
    """
    for name in names:
        require = None if name in _NOT_IN_TABLE else find_metric(name).require_installed
        if require is not None:
            require()
