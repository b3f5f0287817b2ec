"""Resolves hub ids of a recipe to commits, and reads from the lock file what a run began with."""

from __future__ import annotations

import re
from pathlib import Path

from qvft.recipe.recipe_lock import LOCK_NAME, read_lock
from qvft.recipe.schema import Recipe
from qvft.training.run_folder import has_progress

_COMMIT = re.compile(r"[0-9a-f]{40}")


def revision_from_lock(recipe: Recipe) -> Recipe:
    """The recipe with the revisions that its run's lock file records, if there is one."""
    return resolve_revision(recipe) if has_progress(Path(recipe.run_dir)) else recipe


def rates_from_lock(recipe: Recipe) -> Recipe:
    """The recipe with the learning rates of its run's lock file, if it sets none itself."""
    folder = Path(recipe.run_dir)
    known = (folder / LOCK_NAME).is_file() and has_progress(folder)
    if recipe.train.learning_rate is not None or not known:
        return recipe
    rates = {"learning_rate": read_lock(folder).train.learning_rate}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=rates)})


def resolve_revision(recipe: Recipe) -> Recipe:
    """The recipe with the commits of its hub ids, branches or tags; local folders are unchanged.

    A resumed run keeps the commits in its lock file.
    """
    given = [recipe.model.revision]
    if recipe.model.decoder is not None:
        given.append(recipe.model.decoder_revision)
    if all(_COMMIT.fullmatch(revision or "") for revision in given):
        return recipe
    folder = Path(recipe.run_dir)
    if (folder / LOCK_NAME).is_file() and has_progress(folder):
        locked = read_lock(folder).model
        found = {"revision": locked.revision, "decoder_revision": locked.decoder_revision}
    else:
        from qvft.setup.model import base_of  # imports torch, which a resumed run can load later

        base = base_of(recipe)
        found = {"revision": base.revision, "decoder_revision": base.decoder_revision}
    model = recipe.model.model_copy(update=found)
    return recipe.model_copy(update={"model": model})
