"""Feature cache folders: location, listing, pruning. Does not import torch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.features.cache_spec import FORMAT
from qvft.errors import DataError, UserError
from qvft.files import given_path
from qvft.json_files import read_json
from qvft.locks import LOCK

SPACE_FILE, SHARD = "space.json", ".safetensors"
_OF_FORMAT_1 = (".features", ".index.json")
ABANDONED_AFTER_S = 3600.0
"""Seconds after which a partial file that nobody writes to counts as left by a killed process."""


@dataclass(frozen=True)
class Space:
    """A folder of a cache: the features of one ViT, preprocessing and stored type.

    Attributes:
        folder: named by the spec's id.
        described: its `space.json`; empty where that is damaged.
        files: the cache's own in it, but for those that may be being written.
        last_used: seconds since 1970 at which one of them was last read or written.
    """

    folder: Path
    described: Mapping[str, Any]
    files: tuple[Path, ...]
    last_used: float

    @property
    def other_format(self) -> bool:
        """Whether it is of another format than this version's, which does not read it."""
        return bool(self.described) and self.described.get("format") != FORMAT


def default_cache() -> Path:
    """`$QVFT_CACHE`, or `~/.cache/qvft/features`.

    Raises:
        DataError: there is no home folder.
    """
    try:
        return given_path(os.environ.get("QVFT_CACHE") or "~/.cache/qvft/features")
    except UserError as error:
        raise DataError("no home folder", where="features cache", do="set QVFT_CACHE") from error


def shard_files(folder: Path) -> list[Path]:
    """The complete shards of a space's folder, in order of names; none where there is no folder."""
    return sorted(path for path in folder.glob(f"*{SHARD}") if path.name[0] != ".")


def description(folder: Path) -> dict[str, Any]:
    """What `space.json` says of a folder; empty where it is missing or damaged."""
    try:
        found = read_json(folder / SPACE_FILE)
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def spaces(cache: Path) -> list[Space]:
    """The spaces of a cache, in order of names."""
    found = []
    for folder in sorted(path.parent for path in cache.glob(f"*/{SPACE_FILE}")):
        files = tuple(_own_files(folder))
        found.append(Space(folder, description(folder), files, max(map(_last_change, files))))
    return found


def bytes_of(files: Iterable[Path]) -> int:
    """Bytes of files; those that other processes have removed meanwhile count for none."""
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def remove(space: Space) -> None:
    """Removes a space, but for files that are not the cache's own.

    A process that has mapped a shard keeps reading it.

    Raises:
        DataError: a file cannot be removed.
    """
    for path in space.files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot be removed ({error.strerror})", where=str(path), do="check its folder"
            ) from error
    with contextlib.suppress(OSError):  # something is left in it
        space.folder.rmdir()


def remove_abandoned(folder: Path) -> None:
    """Removes what killed processes left half-written."""
    for path in _own_files(folder):
        if _is_partial(path):
            with contextlib.suppress(OSError):  # another process was faster, or a read-only cache
                path.unlink()


def _own_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if _is_partial(path):
            if _last_change(path) < time.time() - ABANDONED_AFTER_S:
                yield path
        elif path.name.endswith((SHARD, LOCK, *_OF_FORMAT_1)):
            yield path
    yield folder / SPACE_FILE


def _is_partial(path: Path) -> bool:
    """Whether a file is half-written: by us, or by safetensors, which names it `.tmp...`."""
    return path.name.startswith(".tmp") or (path.name[0] == "." and path.suffix == ".partial")


def _last_change(path: Path) -> float:
    """Seconds since 1970: of a shard, when it was last mapped. Now, where it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
