"""Where features lie: a cache has a folder for each space, a space's folder two files a shard."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from qvft.data.features.cache_spec import FeatureSpec, space_of
from qvft.errors import DataError, UserError
from qvft.files import given_path
from qvft.json_files import read_json

SPACE_FILE = "space.json"
RECORDS, INDEX = ".features", ".index.json"
"""How the two files of a shard end; a shard is there once its index is."""


def default_cache() -> Path:
    """`$QVFT_CACHE`, or `~/.cache/qvft/features`.

    Raises:
        DataError: there is no home folder.
    """
    try:
        return given_path(os.environ.get("QVFT_CACHE") or "~/.cache/qvft/features")
    except UserError as error:
        raise DataError("no home folder", where="features cache", do="set QVFT_CACHE") from error


def space_folders(cache: Path) -> Iterator[Path]:
    """The folders of a cache that say what they hold, in order of names."""
    yield from sorted(path.parent for path in cache.glob(f"*/{SPACE_FILE}"))


def shard_names(folder: Path) -> list[str]:
    """The shards of a space's folder that are whole, in order; none where there is no folder."""
    with contextlib.suppress(FileNotFoundError):
        names = [entry.name for entry in os.scandir(folder)]
        return sorted(n.removesuffix(INDEX) for n in names if n.endswith(INDEX) and n[0] != ".")
    return []


def read_space(folder: Path) -> FeatureSpec:
    """The space whose folder this is.

    Raises:
        DataError: no readable description, or one that does not belong to a folder of this name.
    """
    path = folder / SPACE_FILE
    space = space_of(read_json(path), where=str(path))
    if space.id != folder.name:
        raise DataError(
            f"describes {space.id}", where=str(path), expected=f"what {folder.name} holds"
        )
    return space


def bytes_of(files: Iterable[Path]) -> int:
    """Bytes that files take; those that others have removed or renamed meanwhile count for none."""
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def last_change(file: Path) -> float:
    """Seconds since 1970: of an index, when its shard was last mapped. Now, where it is gone."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return time.time()
