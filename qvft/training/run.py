"""A whole training run: its folder, its phases in order, its final adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qvft.adapters.checkpoint import MANIFEST
from qvft.errors import CheckpointError
from qvft.log import is_main_process
from qvft.recipe.lock import LOCK_NAME, read_lock, recipe_hash, write_lock
from qvft.recipe.schema import Recipe
from qvft.training.phases import (
    PhaseSetup,
    build_trainer,
    final_checkpoint,
    is_done,
    last_checkpoint,
    mark_done,
)
from qvft.training.texts_a_step import require_same_step, without_cutting


def check_folder(recipe: Recipe) -> Path:
    """The run folder, if this recipe may have it; writes nothing.

    Raises:
        CheckpointError: it holds another recipe's run, or this one's without `train.resume=auto`.
    """
    folder = Path(recipe.run_dir)
    if not is_main_process() or not (folder / LOCK_NAME).is_file():
        return folder
    if not has_progress(folder):
        return folder  # an attempt that ended before its first checkpoint holds nothing to lose
    before = read_lock(folder)
    if recipe_hash(without_cutting(before)) != recipe_hash(without_cutting(recipe)):
        raise CheckpointError(
            "holds another recipe's run",
            where=str(folder),
            do="choose another folder with run.dir=PATH, or remove this one",
        )
    if recipe.train.resume == "never":
        raise CheckpointError(
            "holds this recipe's run already",
            where=str(folder),
            do="go on with train.resume=auto, or choose another folder with run.dir=PATH",
        )
    require_same_step(folder, before, recipe)
    return folder


def has_progress(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint, a finished phase or a final adapter."""
    patterns = ("checkpoints/*/checkpoint-*/trainer_state.json", "checkpoints/*/done.json")
    return is_finished(folder) or any(any(folder.glob(pattern)) for pattern in patterns)


def claim_folder(recipe: Recipe) -> None:
    """Writes the lock that makes the run folder this recipe's; the main process does."""
    if is_main_process():
        write_lock(recipe, Path(recipe.run_dir))


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` has written its final adapter."""
    return (folder / "adapter" / MANIFEST).is_file()


def run_phases(
    folder: Path,
    setups: list[Callable[[Path], PhaseSetup]],
    *,
    save_weights: Callable[[Path], None],
    restore_weights: Callable[[Path], None],
) -> None:
    """Trains phase after phase and writes `adapter/` at the end.

    Args:
        folder: the run folder.
        setups: for each phase a function from its checkpoint folder to its setup; called when the
            phase begins, since it freezes and unfreezes the model.
        save_weights, restore_weights: of all that is trained; called in all processes.

    A phase that ended in an earlier start is not repeated: its weights are read back. One that was
    cut short goes on from its last checkpoint.
    """
    for index, make_setup in enumerate(setups):
        checkpoints = folder / "checkpoints" / f"{index}"
        setup = make_setup(checkpoints)
        if is_done(checkpoints):
            restore_weights(checkpoints / "weights")
            continue
        trainer = build_trainer(
            setup,
            save_weights=save_weights,
            restore_weights=restore_weights,
            metrics_file=folder / "metrics.jsonl",
        )
        final = final_checkpoint(checkpoints, best=setup.arguments.load_best_model_at_end)
        if final is not None:
            restore_weights(final)
        else:
            trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        if index + 1 < len(setups):
            save_weights(checkpoints / "weights")
            if trainer.is_world_process_zero():
                mark_done(checkpoints)
        trainer.accelerator.wait_for_everyone()
    save_weights(folder / "adapter")
