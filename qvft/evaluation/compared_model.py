"""Evaluates a second model under the first one's settings. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qvft.errors import CheckpointError
from qvft.evaluation.embedding_metrics import RETRIEVAL
from qvft.evaluation.stored_evaluation import holds_evaluation, read_standing
from qvft.recipe.load import parse_recipe
from qvft.recipe.recipe_lock import LOCK_NAME
from qvft.setup.itc_heads import retrieves
from qvft.setup.resolve_model import ResolvedModel, resolve_model


def compared_with(
    target: str,
    first: ResolvedModel,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
) -> ResolvedModel | None:
    """What a model is to be compared with, where it is no evaluation that stands.

    Arguments as `open_alike`.

    Raises:
        UserError: it is not there, or is an evaluation whose files are damaged.
    """
    if holds_evaluation(Path(target)):
        read_standing(Path(target))
        return None
    return open_alike(target, first, recipe_path=recipe_path, overrides=overrides)


def open_alike(
    target: str,
    first: ResolvedModel,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
) -> ResolvedModel:
    """A second model, asked about the first one's data, decoded and scored in the same way.

    A run or merged folder keeps the prompts that it was trained with: asked otherwise, it would
    be another model's equal in name only.

    Raises:
        UserError: as `resolve_model`.
    """
    named = Path(target)
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
        # What B has no heads for is left out of its evaluation, and of the comparison.
        metrics = [name for name in asked["eval"]["metrics"] if name != RETRIEVAL]
        asked["eval"] = {**asked["eval"], "metrics": metrics}
    data = {key: value for key, value in asked["data"].items() if key != "train"}
    data = {**data, **prompts, "train": content["data"]["train"]}
    run = {**asked["run"], "dir": content["run"]["dir"]}
    if opened.kind != "run" and first.kind == "run":
        run["dir"] = str(first.home)  # its recipe names where it was trained
    content = {**content, "data": data, "eval": asked["eval"], "run": run}
    return replace(opened, recipe=parse_recipe(content))
