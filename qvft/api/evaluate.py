"""Evaluates a run or model: shared by `qvft.eval` and `qvft.Run.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvft.evaluation.evaluate import Evaluated


def evaluate(target: str, **settings: Any) -> Evaluated:
    """As `evaluate_each`, of evaluation data that is one source."""
    return evaluate_each(target, **settings, several=False)[0]


def evaluate_each(
    target: str,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    overwrite: bool = False,
    against: str | None = None,
    several: bool = True,
) -> list[Evaluated]:
    """Evaluates a model on each source of its evaluation data: data, predictions, scores,
    comparison, report. As `Run.evaluate`, of a run, a model folder or a hub id.

    Args:
        recipe_path: for a model that is not a run: data, prompts, decoding.
        out: folder of the report, for a list of sources that of their folders; None: next to the
            model.
        several: whether `data.eval` may have several sources.
    """
    from qvft.checking.before_torch import require_models
    from qvft.data.rows import evaluation_rows
    from qvft.errors import RecipeError
    from qvft.evaluation.available_metrics import (
        fitting_metrics,
        require_fitting_metrics,
        require_installed_metrics,
        require_metrics,
    )
    from qvft.evaluation.compared_model import compared_with, started_from
    from qvft.evaluation.output_folder import choose_folder, output_folder, require_replaceable
    from qvft.evaluation.rows import prediction_rows
    from qvft.log import get_logger
    from qvft.setup.data import listed
    from qvft.setup.resolve_model import load_resolved, require_eval_data, resolve_model
    from qvft.setup.source_names import require_names, source_name

    opened = resolve_model(target, recipe_path=recipe_path, overrides=overrides, program="eval")
    require_eval_data(opened)
    require_models(opened.recipe)
    require_installed_metrics(opened.recipe.eval.metrics)
    data = opened.recipe.data
    require_names(opened.recipe, "eval")
    sources = [source for _, source in data.sources("eval")]
    if len(sources) > 1 and not several:
        raise RecipeError(
            f"a list of {len(sources)} sources",
            where="data.eval",
            do='evaluate them with evaluate_each, or name one: **{"data.eval": {"path": ...}}',
        )
    checked = []
    names = unused = opened.recipe.eval.metrics
    for source in sources:
        own = data.model_copy(update={"eval": source})
        one = replace(opened, recipe=opened.recipe.model_copy(update={"data": own}))
        folder = out or output_folder(one, source_name(source))
        if out is not None and data.lists("eval"):
            folder = out / source_name(source)
        require_replaceable(folder)
        texts = listed(one.recipe, "eval")
        rows = evaluation_rows(texts.samples, texts=source.texts)
        if len(sources) > 1:
            fitting = fitting_metrics(names, rows)
            unused = [name for name in unused if name not in fitting]
            if left := [name for name in names if name not in fitting]:
                get_logger("qvft.eval").warning(
                    "%s: without the metrics %s", source_name(source), ", ".join(left)
                )
            kept_keys: dict[str, Any] = {"metrics": fitting} if fitting else {}
            if not any(row.kind == "question" for row in rows):
                kept_keys["candidates"] = None
            settings = one.recipe.eval.model_copy(update=kept_keys)
            one = replace(one, recipe=one.recipe.model_copy(update={"eval": settings}))
        other = None
        if against is not None:
            other = compared_with(against, one, recipe_path=recipe_path, overrides=overrides)
            if other is not None:
                require_models(other.recipe)
        if data.on_bad_image == "error":  # all of these texts are used
            require_metrics(one, rows)
        checked.append((one, other, texts, folder))
    if len(sources) > 1:
        require_fitting_metrics(unused, prediction_rows(rows))

    # All checks that need no torch are done.
    from qvft.evaluation import evaluate as evaluation
    from qvft.evaluation.evaluate_against import evaluate_against, evaluation_of_start
    from qvft.evaluation.retention import retention
    from qvft.evaluation.task import prepare

    # Sources differ in data alone; beside a second model, each is freed after its turn.
    shared = len(checked) > 1 and all(other is None for _, other, _, _ in checked)
    load = cache(lambda: load_resolved(checked[0][0])) if shared else None
    done = []
    kept = None  # what was forgotten does not depend on the source
    tasks = [(prepare(one, texts=texts), other, folder) for one, other, texts, folder in checked]
    for task, other, folder in tasks:
        folder = choose_folder(task, folder, named=out is not None, overwrite=overwrite)
        if kept is None:
            kept = retention(task.opened)
        compared = against
        if against is None:
            start = started_from(task.opened)
            compared = None if start is None else evaluation_of_start(task, start)
        if compared is None:
            found = evaluation.evaluate(
                task, folder, retention=kept, overwrite=overwrite, load=load
            )
        else:
            found = evaluate_against(
                task, folder, compared, other, retention=kept, overwrite=overwrite, load=load
            )
        done.append(found)
    return done
