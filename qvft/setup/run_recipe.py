"""Reads the recipe of a finished run. Does not import torch."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from qvft.adapters.manifest import MANIFEST
from qvft.errors import CheckpointError
from qvft.files import expanded
from qvft.models.model_path import TINY_ID
from qvft.recipe.keys_by_program import OF_A_RUN, refuse_ignored
from qvft.recipe.recipe_lock import LOCK_NAME, read_lock, same_recipe
from qvft.recipe.schema import Recipe

LISTED = 5
"""Maximum number of folders in a message."""


def require_there(target: str) -> None:
    """Checks that a name that can only be a folder exists; anything else may be a hub id.

    Raises:
        CheckpointError: it does not exist, or is a file.
    """
    folder = Path(target)
    if target == TINY_ID or folder.is_dir():
        return
    if folder.is_file():
        raise CheckpointError("is a file", where=target, expected="a run folder or a model folder")
    siblings = sorted(
        path.name
        for name in (LOCK_NAME, "config.json")
        for path in (one.parent for one in folder.parent.glob(f"*/{name}"))
    )
    is_path = target.startswith(("/", ".", "~")) or target.count("/") > 1 or target.endswith("/")
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    if is_path or (siblings and "/" in target) or near:
        listed = f"{folder.parent} holds {', '.join(siblings[:LISTED])}" if siblings else None
        raise CheckpointError(
            "no such folder",
            where=target,
            expected="a run folder or a model folder",
            do=f'did you mean "{folder.parent / near[0]}"?' if near else listed,
        )


def run_recipe(run_dir: Path, overrides: list[str], *, program: str | None = None) -> Recipe:
    """The recipe of a run folder from its lock file, with overrides.

    Args:
        program: the command, see `recipe.keys_by_program`; keys that it does not read are refused,
            unless equal to the run's. None: no check.

    Raises:
        CheckpointError: there is no run, or its training has not finished.
        RecipeError: an override that `program` does not read.
    """
    if program is not None:
        refuse_ignored(
            overrides,
            program,
            also=OF_A_RUN if program == "eval" else None,
            repeats=lambda override: _is_of(run_dir, override),
        )
    if not run_dir.is_dir():
        require_there(str(run_dir))
        raise CheckpointError("no such folder", where=str(run_dir), expected="a run folder")
    recipe = read_lock(run_dir, overrides)
    if not (run_dir / "adapter" / MANIFEST).is_file():
        raise CheckpointError(
            "training has not finished: there is no adapter",
            where=str(run_dir),
            do="finish it with train.resume=auto",
        )
    return recipe


def _is_of(run_dir: Path, override: str) -> bool:
    """Whether an override equals the run's value, as in a script with the same overrides for
    training and evaluation.
    """
    key, _, value = override.partition("=")
    if key.strip() == "run.dir":
        return os.path.abspath(expanded(value.strip())) == os.path.abspath(run_dir)
    return same_recipe(read_lock(run_dir), read_lock(run_dir, [override]))
