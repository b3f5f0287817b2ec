"""Run folder of a training run: ownership and progress. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qvft.adapters.fingerprints import MANIFEST
from qvft.disk import not_written
from qvft.errors import CheckpointError
from qvft.locks import LOCK, inside
from qvft.log import is_main_process
from qvft.recipe.recipe_lock import LOCK_NAME, read_lock, shaping_differences, write_lock
from qvft.recipe.schema import Recipe
from qvft.training.checkpoints import STATE
from qvft.training.distributed.global_batch_size import require_same_step, without_cutting


def check_folder(recipe: Recipe) -> Path:
    """Checks that this recipe may use the run folder, and returns it; writes nothing.

    Raises:
        BusyError: another process trains there.
        CheckpointError: it holds another recipe's run, or this one's without `train.resume=auto`.
    """
    folder = Path(recipe.run_dir)
    if is_main_process() and (folder / LOCK).is_file():
        with inside(folder):  # not locked; a killed process left the file
            pass
    return _require_ours(recipe, folder)


def _require_ours(recipe: Recipe, folder: Path) -> Path:
    if not is_main_process() or not (folder / LOCK_NAME).is_file():
        return folder
    if not has_progress(folder):
        return folder  # an attempt without a checkpoint may be overwritten
    before = read_lock(folder)
    differing = shaping_differences(without_cutting(before), without_cutting(recipe))
    if differing:
        said = [
            f"{key} is {_shown(there)} there and {_shown(here)} here"
            for key, there, here in differing
        ]
        more = f"; and {len(said) - NAMED_KEYS} more keys" if len(said) > NAMED_KEYS else ""
        raise CheckpointError(
            f"holds another recipe's run: {'; '.join(said[:NAMED_KEYS])}{more}",
            where=str(folder),
            do="choose another folder with run.dir=PATH, or remove this one",
        )
    if recipe.train.resume == "never":
        raise CheckpointError(
            "already holds this recipe's run",
            where=str(folder),
            do="resume with train.resume=auto, or choose another folder with run.dir=PATH",
        )
    require_same_step(folder, before, recipe)
    return folder


NAMED_KEYS = 5


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def has_progress(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint, a finished phase or a final adapter."""
    patterns = (f"checkpoints/*/checkpoint-*/{STATE}", "checkpoints/*/done.json")
    return is_finished(folder) or any(any(folder.glob(pattern)) for pattern in patterns)


@contextmanager
def claimed_folder(recipe: Recipe) -> Iterator[None]:
    """Locks and initialises the run folder; for the main process.

    Raises:
        BusyError, CheckpointError: as `check_folder`, if another process was faster.
        DataError: the folder is not writable.
    """
    if not is_main_process():
        yield
        return
    folder = Path(recipe.run_dir)
    with inside(folder):
        _require_ours(recipe, folder)
        _remove_partial_files(folder)
        try:
            write_lock(recipe, folder)
        except OSError as error:
            raise not_written(error, folder) from error
        yield


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` has written its final adapter."""
    return (folder / "adapter" / MANIFEST).is_file()


def _remove_partial_files(folder: Path) -> None:
    """Removes what a process left that was killed while it wrote a file."""
    for found in (*folder.glob(".*.partial"), *(folder / "checkpoints").rglob(".*.partial")):
        if found.is_file():
            found.unlink(missing_ok=True)
