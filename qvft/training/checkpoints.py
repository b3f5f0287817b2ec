"""Training checkpoints: written atomically, rotated (`save_total_limit`), found on resuming, their
pickles checked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from qvft.disk import name_whole, remove_whole
from qvft.errors import CheckpointError, first_line
from qvft.json_files import read_json, write_json

STATE = "trainer_state.json"
_STAGING = ".partial"
_PREFIX = "checkpoint-"
_PICKLES = ("optimizer*.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")


class NewCheckpoint:
    """A checkpoint being written, in a staging folder next to the complete ones."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / f"{_PREFIX}{step}"
        self.staging = folder / _STAGING

    def begin(self) -> None:
        """Creates `staging`, in which the Trainer writes as if it were `folder`."""
        clear(self.path.parent)
        self.staging.mkdir()

    def finish(self, *, keep: int | None, best: str | None) -> None:
        """Syncs and renames the checkpoint, then deletes old ones until `keep` are left.

        `keep` counts this one (None: all), and the checkpoint at the path `best` always stays.
        """
        remove_whole(self.path)  # incomplete checkpoints of earlier releases
        name_whole(self.staging / self.path.name, self.path)
        self.staging.rmdir()
        if keep is None:
            return
        older = [path for path in whole_checkpoints(self.path.parent) if path != self.path]
        spared = [path for path in older if best is not None and path.name == Path(best).name]
        others = [path for path in older if path not in spared]
        for path in others[: max(0, len(others) - (keep - 1 - len(spared)))]:
            remove_whole(path)


def whole_checkpoints(folder: Path) -> list[Path]:
    """Resumable checkpoints, oldest first.

    Earlier releases wrote them in place, the state last; one without state is incomplete.
    """
    found = [path.parent for path in folder.glob(f"{_PREFIX}*/{STATE}")]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of a phase, or None."""
    whole = whole_checkpoints(folder)
    return str(whole[-1]) if whole else None


def final_checkpoint(folder: Path, *, best: bool) -> Path | None:
    """The checkpoint that a phase ended with (the last or the best), None if it has steps left.

    A run may be interrupted between its last checkpoint and its adapter. The Trainer, resumed
    there, would take one step too many.
    """
    last = last_checkpoint(folder)
    if last is None:
        return None
    state = read_json(Path(last) / STATE)
    if not state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]:
        return None
    # By its name: the run folder may have been moved.
    return folder / Path((best and state["best_model_checkpoint"]) or last).name


def follow_move(folder: Path) -> None:
    """Updates the absolute path of the best checkpoint, which the Trainer stores in the last one,
    after the run folder was moved or copied.
    """
    last = last_checkpoint(folder)
    if last is None:
        return
    state = read_json(Path(last) / STATE)
    best = state.get("best_model_checkpoint")
    if best is not None and Path(best).parent != folder:
        state["best_model_checkpoint"] = str(folder / Path(best).name)
        write_json(Path(last) / STATE, state)


def require_plain_states(checkpoint: Path) -> None:
    """Raises CheckpointError unless optimizer, scheduler and random states hold only tensors and
    numbers.

    The Trainer also reads them with `weights_only`, so none of them runs code, but its error for a
    damaged file names no file. Tensors are memory-mapped here, not read. `training_args.bin`, a
    pickle that the Trainer writes too, is never read.
    """
    import torch  # programs look for checkpoints before they load it
    from transformers.trainer_pt_utils import safe_globals

    for path in sorted(path for pattern in _PICKLES for path in checkpoint.glob(pattern)):
        try:
            with safe_globals():
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # damaged pickles raise nearly anything
            raise CheckpointError(
                f"cannot be read safely: {first_line(error)[:160]}",
                where=str(path),
                expected="tensors and numbers, as the trainer saves them",
                do=f"remove {checkpoint} to resume from the checkpoint before it",
            ) from error


def clear(folder: Path) -> None:
    """Deletes incomplete checkpoints that a killed process left."""
    for path in (folder / _STAGING, *folder.glob(f".{_PREFIX}*")):
        shutil.rmtree(path, ignore_errors=True)
