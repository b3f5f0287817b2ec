"""What a cache holds, and whether it is what was written. Reads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import (
    INDEX,
    SPACE_FILE,
    bytes_of,
    last_change,
    read_space,
    shard_names,
    space_folders,
)
from qvft.data.features.index import read_index, require_content, require_length
from qvft.errors import DataError


@dataclass(frozen=True)
class Listed:
    """A space of a cache.

    Attributes:
        folder: of the space, named by its id.
        space: None where `space.json` is damaged.
        images: records of different keys; a view counts as an image.
        damaged: shards that can be seen to be damaged without reading their records.
        bytes: of all files.
        last_used: seconds since 1970 at which a shard was last mapped or written.
    """

    folder: Path
    space: FeatureSpec | None
    images: int
    damaged: int
    bytes: int
    last_used: float


@dataclass(frozen=True)
class Verified:
    """A shard, or a space's description: its bytes, and what is wrong with it."""

    path: Path
    bytes: int
    error: DataError | None = None


def listed(cache: Path) -> list[Listed]:
    """The spaces of a cache; the records themselves are not read."""
    return [_listed(folder) for folder in space_folders(cache)]


def verified(cache: Path) -> Iterator[Verified]:
    """Every description and every shard of a cache, read from end to end, as it goes."""
    for folder in space_folders(cache):
        try:
            read_space(folder)
        except DataError as error:
            yield Verified(folder / SPACE_FILE, 0, error)
        for name in shard_names(folder):
            yield verified_shard(folder, name)


def verified_shard(folder: Path, name: str) -> Verified:
    """One shard, read from end to end."""
    path = folder / f"{name}{INDEX}"
    try:
        return Verified(path, require_content(folder, read_index(folder, name)))
    except DataError as error:
        return Verified(path, 0, error)


def _listed(folder: Path) -> Listed:
    try:
        space = read_space(folder)
    except DataError:
        space = None
    keys: set[bytes] = set()
    damaged = 0
    used = [last_change(folder / SPACE_FILE)]
    for name in shard_names(folder):
        used.append(last_change(folder / f"{name}{INDEX}"))
        try:
            index = read_index(folder, name)
            if space is not None:
                require_length(folder, index, space.record_bytes)
            keys.update(index.keys)
        except DataError:
            damaged += 1
    return Listed(folder, space, len(keys), damaged, bytes_of(folder.iterdir()), max(used))
