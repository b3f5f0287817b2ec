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
from qvft.disk import not_written
from qvft.errors import DataError, UserError
from qvft.files import given_path
from qvft.json_files import read_json
from qvft.locks import LOCK

SPACE_FILE, SHARD = "space.json", ".safetensors"
_OF_FORMAT_1 = (".features", ".index.json")
ABANDONED_AFTER_S = 3600.0  # without a write: a partial file of a killed process


@dataclass(frozen=True)
class Space:
    """A cache folder: features of one ViT, preprocessing and stored dtype.

    Attributes:
        described: its `space.json`; empty if damaged.
        files: the cache's files in it, except those that may still be written.
        last_used: time of the last read or write, seconds since 1970.
    """

    folder: Path
    described: Mapping[str, Any]
    files: tuple[Path, ...]
    last_used: float

    @property
    def other_format(self) -> bool:
        """Whether it has another format version, which this version does not read."""
        return bool(self.described) and self.described.get("format") != FORMAT


def default_cache() -> Path:
    """`$QVFT_CACHE`, or `~/.cache/qvft/features`; raises DataError without a home folder."""
    try:
        return given_path(os.environ.get("QVFT_CACHE") or "~/.cache/qvft/features")
    except UserError as error:
        raise DataError("no home folder", where="features cache", do="set QVFT_CACHE") from error


def shard_files(folder: Path) -> list[Path]:
    """Complete shards of a cache folder, by name; empty if there is no folder."""
    return sorted(path for path in folder.glob(f"*{SHARD}") if path.name[0] != ".")


def description(folder: Path) -> dict[str, Any]:
    """Content of a folder's `space.json`; empty if missing or damaged."""
    try:
        found = read_json(folder / SPACE_FILE)
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def spaces(cache: Path) -> list[Space]:
    """Folders of a cache, by name."""
    found = []
    for folder in sorted(path.parent for path in cache.glob(f"*/{SPACE_FILE}")):
        files = tuple(_cache_files(folder))
        found.append(Space(folder, description(folder), files, max(map(_last_change, files))))
    return found


def bytes_of(files: Iterable[Path]) -> int:
    """Total size of files; deleted files count 0."""
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def remove(space: Space) -> None:
    """Removes a cache folder, except files that are not the cache's.

    A process that has memory-mapped a shard can still read it.
    """
    for path in space.files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise not_written(error, path) from error
    with contextlib.suppress(OSError):  # not empty
        space.folder.rmdir()


def remove_abandoned(folder: Path) -> None:
    """Removes partial files of killed processes."""
    for path in _cache_files(folder):
        if _is_partial(path):
            with contextlib.suppress(OSError):  # another process was faster, or a read-only cache
                path.unlink()


def _cache_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if _is_partial(path):
            if _last_change(path) < time.time() - ABANDONED_AFTER_S:
                yield path
        elif path.name.endswith((SHARD, LOCK, *_OF_FORMAT_1)):
            yield path
    yield folder / SPACE_FILE


def _is_partial(path: Path) -> bool:
    """Whether a file is partial: of this package, or `.tmp...` of safetensors."""
    return path.name.startswith(".tmp") or (path.name[0] == "." and path.suffix == ".partial")


def _last_change(path: Path) -> float:
    """Time of the last change (of a shard: mapping), in seconds since 1970; now, if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
