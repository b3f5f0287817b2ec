"""Resolves a hub id to its commit, which the lock file records."""

from __future__ import annotations

import re
from pathlib import Path

from qvft.recipe.recipe_lock import LOCK_NAME, read_lock
from qvft.recipe.schema import Recipe
from qvft.training.run_folder import has_progress

_COMMIT = re.compile(r"[0-9a-f]{40}")


def revision_from_lock(recipe: Recipe) -> Recipe:
    """The recipe with the revision that its run's lock file records, if there is one; does not
    import torch.
    """
    return resolve_revision(recipe) if has_progress(Path(recipe.run_dir)) else recipe


def resolve_revision(recipe: Recipe) -> Recipe:
    """The recipe with the commit of its hub id, branch or tag; local folders are unchanged.

    A resumed run keeps the commit in its lock file.

    Raises:
        ModelError: the base does not exist.
    """
    if _COMMIT.fullmatch(recipe.model.revision or ""):
        return recipe
    folder = Path(recipe.run_dir)
    if (folder / LOCK_NAME).is_file() and has_progress(folder):
        commit = read_lock(folder).model.revision
    else:
        from qvft.setup.model import (
            base_of,  # imports torch, which a resumed run can load later
        )

        commit = base_of(recipe).revision
    model = recipe.model.model_copy(update={"revision": commit})
    return recipe.model_copy(update={"model": model})
