"""Training checkpoints: written atomically, listed, rotated (`save_total_limit`)."""

from __future__ import annotations

import shutil
from pathlib import Path

from qvft.disk import name_whole, remove_whole

STATE = "trainer_state.json"
_STAGING = ".partial"
_PREFIX = "checkpoint-"


class NewCheckpoint:
    """A checkpoint being written, in a staging folder next to the complete ones.

    Args:
        folder: folder of the phase's checkpoints; it must exist, and is not created again if
            deleted.
        step: step of the checkpoint.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / f"{_PREFIX}{step}"
        self.staging = folder / _STAGING

    def begin(self) -> None:
        """Creates `staging`, in which the Trainer writes as if it were `folder`."""
        clear(self.path.parent)
        self.staging.mkdir()

    def finish(self, *, keep: int | None, best: str | None) -> None:
        """Syncs and renames the checkpoint, then deletes old ones (`save_total_limit`).

        Args:
            keep: number of checkpoints to keep, including this one; None: all.
            best: path of a checkpoint that is always kept.
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


def clear(folder: Path) -> None:
    """Deletes incomplete checkpoints that a killed process left."""
    for path in (folder / _STAGING, *folder.glob(f".{_PREFIX}*")):
        shutil.rmtree(path, ignore_errors=True)
