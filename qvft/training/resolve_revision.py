"""The commit of a hub id, so that a lock means the same weights for ever."""

from __future__ import annotations

import re
from pathlib import Path

from qvft.recipe.recipe_lock import LOCK_NAME, read_lock
from qvft.recipe.schema import Recipe
from qvft.training.run_folder import has_progress

_COMMIT = re.compile(r"[0-9a-f]{40}")


def revision_from_lock(recipe: Recipe) -> Recipe:
    """The recipe as its run pinned it, where one stands; torch is not imported."""
    return resolve_revision(recipe) if has_progress(Path(recipe.run_dir)) else recipe


def resolve_revision(recipe: Recipe) -> Recipe:
    """The recipe with the commit that its hub id, branch or tag means now; of folders as it is.

    A run that goes on keeps what its lock says, whatever the hub holds by now.

    Raises:
        ModelError: the base is not there.
    """
    if _COMMIT.fullmatch(recipe.model.revision or ""):
        return recipe
    folder = Path(recipe.run_dir)
    if (folder / LOCK_NAME).is_file() and has_progress(folder):
        commit = read_lock(folder).model.revision
    else:
        from qvft.setup.model import (
            base_of,  # brings torch, which a run that stands can wait for
        )

        commit = base_of(recipe).revision
    model = recipe.model.model_copy(update={"revision": commit})
    return recipe.model_copy(update={"model": model})
