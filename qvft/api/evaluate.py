"""Evaluates a run or model: shared by `qvft.eval` and `qvft.Run.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qvft.evaluation.run import Evaluated
    from qvft.setup.resolve_model import ResolvedModel


def evaluate(target: str, **settings: Any) -> Evaluated:
    """As `evaluate_each`, of evaluation data that is one source.

    Raises:
        RecipeError: it is a list of several.
    """
    from qvft.errors import RecipeError

    checked = _checked_each(target, **settings)
    if len(checked) > 1:
        raise RecipeError(
            f"a list of {len(checked)} sources",
            where="data.eval",
            do='evaluate them with evaluate_each, or name one: **{"data.eval": {"path": ...}}',
        )
    return checked[0]()


def evaluate_each(target: str, **settings: Any) -> list[Evaluated]:
    """Evaluates a model on each source of `data.eval`: predictions, scores, comparison, report.

    Args:
        target, settings: as `_checked_each`.

    Raises:
        UserError: the target, the recipe, the data or the folder is wrong; reported before the
            first source is evaluated.
    """
    return [run() for run in _checked_each(target, **settings)]


def _checked_each(
    target: str,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    overwrite: bool = False,
    against: str | None = None,
) -> list[Callable[[], Evaluated]]:
    """A function per source that evaluates it; all checks that need no torch are done.

    Args:
        target: run folder, model folder or hub id.
        recipe_path: for a model that is not a run: data, prompts, decoding.
        overrides: `key.path=value` overrides of the recipe.
        out: folder of the report, of several sources that of their folders; None: next to the
            model.
        overwrite: replace an evaluation of other data or settings in that folder.
        against: run, model, or folder of an evaluation to compare with on the same items; None: the
            run that a run started from (`train.from`), if that was evaluated on them.
    """
    from qvft.checking.before_torch import require_models
    from qvft.evaluation.available_metrics import require_installed_metrics
    from qvft.evaluation.compared_model import compared_with
    from qvft.setup.data import source_name
    from qvft.setup.resolve_model import require_eval_data, resolve_model

    opened = resolve_model(target, recipe_path=recipe_path, overrides=overrides, program="eval")
    require_eval_data(opened)
    require_models(opened.recipe)
    require_installed_metrics(opened.recipe.eval.metrics)
    checked = []
    for one in _by_source(opened):
        folder = out
        if out is not None and opened.recipe.data.lists("eval"):
            folder = out / source_name(require_eval_data(one))
        other = None
        if against is not None:
            other = compared_with(against, one, recipe_path=recipe_path, overrides=overrides)
            if other is not None:
                require_models(other.recipe)
        checked.append(_checked(one, folder, overwrite=overwrite, against=against, other=other))
    return checked


def _by_source(opened: ResolvedModel) -> list[ResolvedModel]:
    """The model with each source of a list of evaluation data as its only one.

    Raises:
        RecipeError: two sources have the same name.
    """
    from qvft.setup.data import require_names

    data = opened.recipe.data
    require_names(opened.recipe, "eval")
    return [
        replace(
            opened,
            recipe=opened.recipe.model_copy(
                update={"data": data.model_copy(update={"eval": source})}
            ),
        )
        for _, source in data.sources("eval")
    ]


def _checked(
    opened: ResolvedModel,
    out: Path | None,
    *,
    overwrite: bool,
    against: str | None,
    other: ResolvedModel | None,
) -> Callable[[], Evaluated]:
    """A function that evaluates one source, whose texts and folder are checked."""
    from qvft.data.rows import evaluation_rows
    from qvft.evaluation.available_metrics import require_metrics
    from qvft.evaluation.output_folder import output_folder, require_replaceable
    from qvft.setup.data import listed, source_name
    from qvft.setup.resolve_model import require_eval_data

    source = require_eval_data(opened)
    folder = out or output_folder(opened, source_name(source))
    require_replaceable(folder)
    texts = listed(opened.recipe, "eval")
    if opened.recipe.data.on_bad_image == "error":  # all of these texts are used
        require_metrics(opened, evaluation_rows(texts.samples, texts=source.texts))

    def run() -> Evaluated:
        from qvft.evaluation import run as running
        from qvft.evaluation.compare_runs import evaluate_against, evaluation_of_start
        from qvft.evaluation.compared_model import started_from
        from qvft.evaluation.output_folder import place_of
        from qvft.evaluation.retention import retention, retention_tasks
        from qvft.evaluation.task import prepare

        task = prepare(opened, texts=texts)
        place = place_of(task, folder, named=out is not None, overwrite=overwrite)
        kept = retention(retention_tasks(opened))
        compared = against
        if compared is None:
            start = started_from(opened)
            compared = None if start is None else evaluation_of_start(task, start)
        if compared is None:
            return running.evaluate(task, place, retention=kept, overwrite=overwrite)
        return evaluate_against(task, place, compared, other, retention=kept, overwrite=overwrite)

    return run
