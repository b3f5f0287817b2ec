"""Making room: shards that nobody uses, are damaged, or are of a named space. Reads no torch."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from qvft.data.features.folders import (
    INDEX,
    RECORDS,
    SPACE_FILE,
    bytes_of,
    last_change,
    shard_names,
    space_folders,
)
from qvft.data.features.listing import verified_shard
from qvft.data.features.orphaned_files import leftovers
from qvft.errors import DataError, UserError

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be: spaces left empty, shards, files of killed writers, bytes."""

    spaces: int
    shards: int
    leftovers: int
    bytes: int


def prune(
    cache: Path,
    *,
    unused_days: float | None = None,
    space: str | None = None,
    damaged: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Removes shards and what killed writers left; a space without shards goes too.

    Nothing is removed but files that the cache's own names show to be its own. Whoever has mapped
    a shard keeps reading it.

    Args:
        cache: the folder of all spaces.
        unused_days: shards that nobody mapped or wrote for so long.
        space: an id or its beginning: of this space alone; with nothing else, all of its shards.
        damaged: shards that are not what was written; they are read from end to end.
        dry_run: only counts.

    Raises:
        UserError: nothing says what is to go, or `space` names none or several.
        DataError: a file cannot be removed.
    """
    if unused_days is None and space is None and not damaged:
        raise UserError("nothing says what is to go", do="give --unused-days, --space or --damaged")
    before = None if unused_days is None else time.time() - unused_days * _DAY_S
    whole = unused_days is None and not damaged
    spaces = shards = left = freed = 0
    for folder in _folders(cache, space):
        names = shard_names(folder)
        gone = [
            name
            for name in names
            if whole
            or _unused(folder / f"{name}{INDEX}", before)
            or (damaged and verified_shard(folder, name).error is not None)
        ]
        abandoned = leftovers(folder)
        # The index first: a shard without one is nobody's.
        files = [folder / f"{name}{ending}" for name in gone for ending in (INDEX, RECORDS)]
        files += abandoned
        described = folder / SPACE_FILE
        if len(gone) == len(names) and (gone or whole or _unused(described, before)):
            files.append(described)
            spaces += 1
        shards, left = shards + len(gone), left + len(abandoned)
        freed += bytes_of(files)
        if not dry_run:
            _remove(folder, files)
    return Pruned(spaces, shards, left, freed)


def _folders(cache: Path, space: str | None) -> list[Path]:
    folders = [one for one in space_folders(cache) if one.name.startswith(space or "")]
    if space is not None and len(folders) != 1:
        raise UserError(
            f"{len(folders)} spaces begin with `{space}`",
            where=str(cache),
            expected="one",
            do="`python -m qvft.features list` shows their ids",
        )
    return folders


def _unused(path: Path, before: float | None) -> bool:
    return before is not None and last_change(path) < before


def _remove(folder: Path, files: list[Path]) -> None:
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot be removed ({error.strerror})", where=str(path), do="check its folder"
            ) from error
    with contextlib.suppress(OSError):  # something is left in it
        folder.rmdir()
