"""The resolved recipe a run keeps, and the question whether two recipes are the same."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from qvft.errors import CheckpointError
from qvft.files import write_text
from qvft.json_files import sha256_json
from qvft.recipe.load import load_recipe, read_yaml
from qvft.recipe.schema import Recipe

LOCK_NAME = "recipe.lock.yaml"


def recipe_hash(recipe: Recipe) -> str:
    """Hex SHA-256 over all that shapes the trained weights.

    Left out: where the run lies, whether it resumes, how it is logged, how it is evaluated (unless
    evaluation chooses the checkpoint), and what is done about spikes: a run that one stopped goes
    on without it. Changing these does not make it another run.
    """
    return _hash(recipe.model_dump())


def lock_hash(run_dir: Path) -> str:
    """The `recipe_hash` that a run folder's recipe had when its lock was written.

    A later version knows further keys, with defaults; this is over those that stand in the file.
    """
    return _hash(read_yaml(run_dir / LOCK_NAME))


def _hash(recipe: Mapping[str, Any]) -> str:
    content = copy.deepcopy({key: value for key, value in recipe.items() if key != "eval"})
    for key in ("dir", "threads"):
        content["run"].pop(key, None)
    for key in ("resume", "report_to", "log_steps", "save_steps", "keep", "spike"):
        content["train"].pop(key, None)
    for key in ("workers", "cache_images", "features", "features_limit_gb"):
        content["data"].pop(key, None)
    for split in ("train", "eval"):
        (content["data"].get(split) or {}).pop("allow_outside", None)
    if not content["train"].get("keep_best"):
        content["data"].pop("eval", None)
    return sha256_json(content)


def write_lock(recipe: Recipe, run_dir: Path) -> None:
    """Writes `recipe.lock.yaml`: the recipe with every default and override resolved."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # ruamel.yaml sets it to None without a type, so that mypy takes it to be None always.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(recipe.model_dump(mode="json"), stream)
    write_text(run_dir / LOCK_NAME, "# Written by qvft.train.\n" + stream.getvalue())


def read_lock(run_dir: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe of a run folder.

    Raises:
        CheckpointError: the folder is missing or is not a run.
    """
    path = run_dir / LOCK_NAME
    if not path.is_file():
        raise CheckpointError(
            f"no {LOCK_NAME}", where=str(run_dir), expected="the folder of a qvft.train run"
        )
    return load_recipe(path, overrides)
