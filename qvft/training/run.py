"""A whole training run: its folder, its phases in order, its final adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qvft.adapters.checkpoint import MANIFEST
from qvft.disk import not_written, replaced_folder, saving
from qvft.errors import CheckpointError
from qvft.locks import LOCK, inside
from qvft.log import is_main_process
from qvft.recipe.lock import LOCK_NAME, read_lock, recipe_hash, write_lock
from qvft.recipe.schema import Recipe
from qvft.training.checkpoints import STATE, clear
from qvft.training.metrics_log import drop_torn_line
from qvft.training.phases import (
    PhaseSetup,
    build_trainer,
    final_checkpoint,
    follow_move,
    is_done,
    last_checkpoint,
    mark_done,
)
from qvft.training.processes.texts_a_step import require_same_step, without_cutting
from qvft.training.stopping import StopAtStep, requests_noted
from qvft.training.trackers import trackers_named


def check_folder(recipe: Recipe) -> Path:
    """The run folder, if this recipe may have it; writes nothing.

    Raises:
        BusyError: another process trains there.
        CheckpointError: it holds another recipe's run, or this one's without `train.resume=auto`.
    """
    folder = Path(recipe.run_dir)
    if is_main_process() and (folder / LOCK).is_file():
        with inside(folder):  # nobody does; a process that was killed has left the file
            pass
    return _require_ours(recipe, folder)


def _require_ours(recipe: Recipe, folder: Path) -> Path:
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
    patterns = (f"checkpoints/*/checkpoint-*/{STATE}", "checkpoints/*/done.json")
    return is_finished(folder) or any(any(folder.glob(pattern)) for pattern in patterns)


@contextmanager
def claimed_folder(recipe: Recipe) -> Iterator[None]:
    """Makes the run folder this recipe's, and keeps other processes out; the main process does.

    Raises:
        BusyError, CheckpointError: as `check_folder`, if another has been faster.
        DataError: nothing can be written there.
    """
    if not is_main_process():
        yield
        return
    folder = Path(recipe.run_dir)
    with inside(folder):
        _require_ours(recipe, folder)
        try:
            write_lock(recipe, folder)
        except OSError as error:
            raise not_written(error, folder) from error
        yield


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
    if is_main_process():
        drop_torn_line(folder / "metrics.jsonl")
    with requests_noted() as request:
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
            trainer.add_callback(StopAtStep(request))
            if trainer.is_world_process_zero():
                checkpoints.mkdir(parents=True, exist_ok=True)
                follow_move(checkpoints)
            trainer.accelerator.wait_for_everyone()
            final = final_checkpoint(checkpoints, best=setup.arguments.load_best_model_at_end)
            if final is not None:
                restore_weights(final)
            else:
                with trackers_named(setup.arguments.report_to):
                    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
            if trainer.is_world_process_zero():
                clear(checkpoints)
            if index + 1 < len(setups):
                _write(checkpoints / "weights", save_weights)
                if trainer.is_world_process_zero():
                    mark_done(checkpoints)
            trainer.accelerator.wait_for_everyone()
        _write(folder / "adapter", save_weights)


def _write(folder: Path, save_weights: Callable[[Path], None]) -> None:
    """Writes an adapter folder whole, or leaves the one that is there; all processes call it.

    Raises:
        FailedError: it could not be written.
    """
    if not is_main_process():
        save_weights(folder)  # gives its parts of the weights and writes nothing
        return
    kept = "the checkpoints are whole; go on with train.resume=auto"
    with saving(folder, kept=kept), replaced_folder(folder) as partial:
        save_weights(partial)
