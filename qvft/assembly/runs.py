"""The recipe of a run that has finished. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from qvft.adapters.fingerprints import MANIFEST
from qvft.errors import CheckpointError
from qvft.recipe.lock import read_lock
from qvft.recipe.schema import Recipe


def run_recipe(run_dir: Path, overrides: list[str]) -> Recipe:
    """The recipe of a run folder with overrides laid over its lock.

    Raises:
        CheckpointError: no run is there, or its training has not finished.
    """
    recipe = read_lock(run_dir, overrides)
    if not (run_dir / "adapter" / MANIFEST).is_file():
        raise CheckpointError(
            "training has not finished: there is no adapter",
            where=str(run_dir),
            do="finish it with train.resume=auto",
        )
    return recipe
