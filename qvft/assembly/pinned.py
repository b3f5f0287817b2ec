"""The commit of a hub id, so that a lock means the same weights for ever."""

from __future__ import annotations

import re
from pathlib import Path

from qvft.assembly.model import base_of
from qvft.recipe.lock import LOCK_NAME, read_lock
from qvft.recipe.schema import Recipe
from qvft.training.run import has_progress

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pinned(recipe: Recipe) -> Recipe:
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
        commit = base_of(recipe).revision
    model = recipe.model.model_copy(update={"revision": commit})
    return recipe.model_copy(update={"model": model})
