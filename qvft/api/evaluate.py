"""Evaluates a run or model: shared by `qvft.eval` and `qvft.Run.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qvft.evaluation.run import Evaluated


def evaluate(
    target: str,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    overwrite: bool = False,
    against: str | None = None,
) -> Evaluated:
    """Evaluates a model: data, predictions, scores, comparison, report.

    Args:
        target: run folder, model folder or hub id.
        recipe_path: for a model that is not a run: data, prompts, decoding.
        overrides: `key.path=value` overrides of the recipe.
        out: folder of the report; None: next to the model.
        overwrite: replace an evaluation of other data or settings in that folder.
        against: run, model, or folder of an evaluation to compare with on the same items; None: the
            run that a run started from (`train.from`), if that was evaluated on them.

    Raises:
        UserError: the target, the recipe, the data or the folder is wrong.
    """
    from qvft.checking.before_torch import require_models
    from qvft.data.rows import evaluation_rows
    from qvft.evaluation.available_metrics import require_installed_metrics, require_metrics
    from qvft.evaluation.compared_model import compared_with, started_from
    from qvft.evaluation.output_folder import output_folder, place_of, require_replaceable
    from qvft.setup.data import listed, source_name
    from qvft.setup.resolve_model import require_eval_data, resolve_model

    opened = resolve_model(target, recipe_path=recipe_path, overrides=overrides, program="eval")
    source = require_eval_data(opened)
    require_models(opened.recipe)
    require_installed_metrics(opened.recipe.eval.metrics)
    folder = out or output_folder(opened, source_name(source))
    require_replaceable(folder)
    other = None
    if against is not None:
        other = compared_with(against, opened, recipe_path=recipe_path, overrides=overrides)
        if other is not None:
            require_models(other.recipe)
    texts = listed(opened.recipe, "eval")
    if opened.recipe.data.on_bad_image == "error":  # all of these texts are used
        require_metrics(opened, evaluation_rows(texts.samples, texts=source.texts))

    # All checks that need no torch are done.
    from qvft.evaluation import run
    from qvft.evaluation.compare_runs import evaluate_against, evaluation_of_start
    from qvft.evaluation.task import prepare

    task = prepare(opened, texts=texts)
    folder = place_of(task, folder, named=out is not None, overwrite=overwrite)
    if against is None:
        start = started_from(opened)
        against = None if start is None else evaluation_of_start(task, start)
    if against is None:
        return run.evaluate(task, folder, overwrite=overwrite)
    return evaluate_against(task, folder, against, other, overwrite=overwrite)
