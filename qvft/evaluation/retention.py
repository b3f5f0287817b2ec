"""Retention: scores of a run and its base on other data than the domain's; what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class RetentionTask:
    """A checked evaluation of the run on one of `eval.retention`, and the base to compare with."""

    task: Task
    base: ResolvedModel


def retention_tasks(opened: ResolvedModel) -> list[RetentionTask]:
    """One task per entry of `eval.retention`; none for a model that is not a run.

    Raises:
        UserError: the data cannot be read; the message begins with its key.
    """
    sources = opened.recipe.eval.retention
    if sources and opened.kind != "run":
        logger.warning("eval.retention is left out: only a run says what its base is")
        return []
    tasks: list[RetentionTask] = []
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
        if any(task.split.name == other.task.split.name for other in tasks):
            raise RecipeError(
                f"two are called {task.split.name}",
                where=f"eval.retention.{number}.name",
                do="give each a name of its own",
            )
        tasks.append(RetentionTask(task, base))
    return tasks


def retention(tasks: Sequence[RetentionTask]) -> dict[str, Comparison]:
    """Run minus base, by data set: paired differences with intervals, without the single items.

    Evaluations that stand are used again where nothing has changed.
    """
    found = {}
    for one in tasks:
        home = one.task.opened.home
        assert home is not None, "a run has a folder"
        folder = choose_folder(one.task, home / FOLDER / one.task.split.name)
        evaluated = evaluate_against(one.task, folder, one.base.name, one.base)
        assert evaluated.report.against is not None
        found[one.task.split.name] = evaluated.report.against.model_copy(update={"changed": []})
    return found
