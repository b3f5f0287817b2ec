"""Lock file of a run: the resolved recipe, and a comparison with another recipe."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from qvft.errors import CheckpointError
from qvft.files import write_text
from qvft.json_files import sha256_json
from qvft.recipe.load import LOCK_NAME, load_recipe, read_yaml
from qvft.recipe.renamed_keys import old_names
from qvft.recipe.schema import Recipe
from qvft.recipe.section import leaves


def recipe_hash(recipe: Recipe) -> str:
    """Hex SHA-256 over all hyperparameters that affect the trained weights.

    Excluded: the run folder, resume, logging, evaluation (unless it selects the checkpoint), and
    the loss spike policy. A run can be resumed with other values of these.
    """
    return sha256_json(_shaping(recipe.model_dump()))


def lock_hash(run_dir: Path) -> str:
    """`recipe_hash` of a run folder's recipe as its lock file was written.

    A later version knows further keys, with defaults, and may have renamed some; this is over those
    in the file, under the names in the file.
    """
    return sha256_json(_shaping(read_yaml(run_dir / LOCK_NAME)))


def shaping_differences(there: Recipe, here: Recipe) -> list[tuple[str, Any, Any]]:
    """Changed hyperparameters that affect the trained weights: (key path, value there, value here).

    Paths are compared as paths: `./x`, `x` and their absolute path are equal. Phases are compared
    by number.
    """
    return _differences(_shaping(there.model_dump()), _shaping(here.model_dump()))


def same_recipe(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes have the same value for every key; paths are compared as paths."""
    return not _differences(one.model_dump(), other.model_dump())


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    one, other = dict(leaves(there)), dict(leaves(here))
    return [
        (key, one.get(key), other.get(key))
        for key in [*one, *(key for key in other if key not in one)]
        if _comparable(key, one.get(key)) != _comparable(key, other.get(key))
    ]


_PATHS = {"id", "decoder", "text_branch", "path", "images", "questions", "annotations", "from"}
"""Last parts of the keys that may hold a path."""


def _comparable(key: str, value: Any) -> Any:
    if isinstance(value, str) and key.split(".")[-1] in _PATHS and key.split(".")[0] != "trainable":
        return os.path.abspath(os.path.expanduser(value)) if "://" not in value else value
    return value


def _shaping(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a recipe's content that affects the trained weights."""
    content = copy.deepcopy({key: value for key, value in recipe.items() if key != "eval"})
    data, train = content["data"], content["train"]
    _drop(content["run"], "run", "dir", "threads")
    _drop(train, "train", "resume", "report_to", "logging_steps", "save_steps", "save_total_limit")
    _drop(train, "train", "spike", "eval_completions")
    _drop(data, "data", "num_workers", "cache_images", "features", "features_limit_gb", "license")
    for split in ("train", "eval"):
        given = data.get(split) or {}
        for source in given if isinstance(given, list) else [given]:
            _drop(source, f"data.{split}", "allow_paths_outside_root")
    if not any(train.get(key) for key in _with_old("train", "load_best_model_at_end")):
        data.pop("eval", None)
    return content


def _drop(content: dict[str, Any], section: str, *keys: str) -> None:
    """Removes keys of a section, in place, whether they have their current or their old names."""
    for key in _with_old(section, *keys):
        content.pop(key, None)


def _with_old(section: str, *keys: str) -> tuple[str, ...]:
    return (*keys, *old_names(section, keys))


def write_lock(recipe: Recipe, run_dir: Path, notes: Iterable[str] = ()) -> None:
    """Writes `recipe.lock.yaml`: the recipe with every default and override resolved, and notes as
    comments above it.
    """
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # ruamel.yaml sets it to None without a type, so that mypy takes it to be None always.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(recipe.model_dump(mode="json"), stream)
    head = "".join(f"# {' '.join(note.split())}\n" for note in ("Written by qvft.train.", *notes))
    write_text(run_dir / LOCK_NAME, head + stream.getvalue())


def read_lock(run_dir: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe of a run folder; raises CheckpointError if it is missing or not a run."""
    path = run_dir / LOCK_NAME
    if not path.is_file():
        raise CheckpointError(
            f"no {LOCK_NAME}", where=str(run_dir), expected="the folder of a qvft.train run"
        )
    return load_recipe(path, overrides)
