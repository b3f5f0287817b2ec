"""Retention: scores of a run and its base on other data than the domain's; what was forgotten."""

from __future__ import annotations

from dataclasses import replace

from qvft.errors import RecipeError, UserError
from qvft.evaluation.compared_model import compared_with
from qvft.evaluation.comparison import Comparison
from qvft.evaluation.evaluate_against import evaluate_against
from qvft.evaluation.output_folder import choose_folder
from qvft.evaluation.task import Task, prepare
from qvft.log import get_logger
from qvft.recipe.load import parse_recipe
from qvft.setup.resolve_model import ResolvedModel

logger = get_logger("qvft.eval")

FOLDER = "eval-retention"
"""Folder of these evaluations in the run folder, one per data set."""


def retention(opened: ResolvedModel) -> dict[str, Comparison]:
    """Run minus base by data set of `eval.retention`: paired differences with intervals, without
    the single items; empty for a model that is not a run.

    All data is checked before anything is generated. Evaluations that stand are used again where
    nothing has changed.

    Raises:
        UserError: the data cannot be read; the message begins with its key.
    """
    sources = opened.recipe.eval.retention
    if sources and opened.kind != "run":
        logger.warning("eval.retention is left out: only a run says what its base is")
        return {}
    tasks: dict[str, tuple[Task, ResolvedModel]] = {}
    for number, source in enumerate(sources):
        content = opened.recipe.model_dump()
        content["data"]["eval"] = source.model_dump()
        content["eval"] |= {"retention": [], "blind": False, "metrics": ["auto"], "classes": []}
        content["eval"] |= {"scores": False, "candidates": None, "abstain_below": None}
        run = replace(opened, recipe=parse_recipe(content))
        base = compared_with(run.recipe.model.id, run)
        assert base is not None, "a base is no folder of an evaluation"
        try:
            task = prepare(run)
        except UserError as error:
            raise RecipeError(f"{error}", where=f"eval.retention.{number}") from error
        if task.split.name in tasks:
            raise RecipeError(
                f"two are called {task.split.name}",
                where=f"eval.retention.{number}.name",
                do="give each a name of its own",
            )
        tasks[task.split.name] = task, base
    found = {}
    for name, (task, base) in tasks.items():
        assert opened.home is not None, "a run has a folder"
        folder = choose_folder(task, opened.home / FOLDER / name)
        report = evaluate_against(task, folder, base.name, base).report
        assert report.against is not None
        found[name] = report.against.model_copy(update={"changed": []})
    return found
