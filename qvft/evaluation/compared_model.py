"""Evaluates a second model under the first one's settings. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qvft.errors import CheckpointError, UserError
from qvft.evaluation.embedding_metrics import RETRIEVAL
from qvft.evaluation.stored_evaluation import holds_evaluation, read_evaluation
from qvft.log import get_logger
from qvft.recipe.load import parse_recipe
from qvft.recipe.recipe_lock import LOCK_NAME
from qvft.setup.itc_heads import retrieves
from qvft.setup.resolve_model import ResolvedModel, resolve_model

logger = get_logger("qvft.eval")


def started_from(opened: ResolvedModel) -> ResolvedModel | None:
    """The run that a run started from, resolved as `compared_with`; None if it is not a whole run,
    or is gone.
    """
    name = opened.recipe.train.from_
    if opened.kind != "run" or name is None or not (Path(name) / LOCK_NAME).is_file():
        return None
    try:
        return compared_with(name, opened)
    except UserError as error:
        logger.info("not compared with the run it started from: %s", error)
        return None


def compared_with(
    target: str,
    first: ResolvedModel,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
) -> ResolvedModel | None:
    """The model to compare with, resolved with the first one's data, decoding and metrics.

    A run or merged folder keeps its training prompts.

    Args:
        target: run, model folder, hub id, or the folder of an evaluation.
        recipe_path, overrides: those of `first`, for a model that is not a run.

    Returns:
        None if `target` is the folder of an evaluation.

    Raises:
        UserError: as `resolve_model`, or a damaged evaluation.
    """
    named = Path(target)
    if holds_evaluation(named):
        read_evaluation(named)
        return None
    if named.is_dir() and not any((named / name).is_file() for name in (LOCK_NAME, "config.json")):
        raise CheckpointError(
            "neither a run, a model nor an evaluation is in it",
            where=target,
            expected="recipe.lock.yaml, config.json, or predictions.jsonl and report.json",
        )
    opened = resolve_model(target)
    prompts = opened.recipe.data.model_dump(include={"prompt", "text", "max_text_tokens"})
    if opened.kind != "run":
        trained_with = opened.home is not None and (opened.home / "merge.json").is_file()
        if recipe_path is None and first.kind == "run" and first.home is not None:
            recipe_path = str(first.home / LOCK_NAME)
        opened = resolve_model(target, recipe_path=recipe_path, overrides=overrides)
        if not trained_with:
            prompts = {}
    content = opened.recipe.model_dump()
    asked = first.recipe.model_dump()
    if not retrieves(opened) and asked["eval"]["metrics"] != [RETRIEVAL]:
        # Metrics that need heads which B does not have are left out.
        metrics = [name for name in asked["eval"]["metrics"] if name != RETRIEVAL]
        asked["eval"] = {**asked["eval"], "metrics": metrics}
    data = {key: value for key, value in asked["data"].items() if key != "train"}
    data = {**data, **prompts, "train": content["data"]["train"]}
    run = {**asked["run"], "dir": content["run"]["dir"]}
    if opened.kind != "run" and first.kind == "run":
        run["dir"] = str(first.home)  # its recipe has the path of training
    content = {**content, "data": data, "eval": asked["eval"], "run": run}
    return replace(opened, recipe=parse_recipe(content))
