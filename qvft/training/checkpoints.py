"""The checkpoints of a phase: each is there whole under its name, or cannot be seen."""

from __future__ import annotations

import shutil
from pathlib import Path

from qvft.disk import name_whole, remove_whole

STATE = "trainer_state.json"
_STAGING = ".partial"
_PREFIX = "checkpoint-"


class NewCheckpoint:
    """A checkpoint in the making, beside those that are whole.

    Args:
        folder: of the phase's checkpoints; it is there, and a checkpoint is not written where it
            has gone.
        step: at which it is taken.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / f"{_PREFIX}{step}"
        self.staging = folder / _STAGING

    def begin(self) -> None:
        """Makes `staging`, in which the Trainer writes as if it were `folder`."""
        clear(self.path.parent)
        self.staging.mkdir()

    def finish(self, *, keep: int | None, best: str | None) -> None:
        """Gives it its name once all of it is on the disk, and only then lets old ones go.

        Args:
            keep: how many stay, this one among them; None: all.
            best: path of one that stays in any case.
        """
        remove_whole(self.path)  # what an earlier release left half-written
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
    """The checkpoints that can be gone on from, oldest first.

    Earlier releases wrote them in place, the state last; what lacks it was cut off.
    """
    found = [path.parent for path in folder.glob(f"{_PREFIX}*/{STATE}")]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def clear(folder: Path) -> None:
    """Removes what a killed process left in a folder of checkpoints."""
    for path in (folder / _STAGING, *folder.glob(f".{_PREFIX}*")):
        shutil.rmtree(path, ignore_errors=True)
