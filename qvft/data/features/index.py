"""A shard's index: what stands in it, and what its bytes must add up to. Reads no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.features.folders import INDEX, RECORDS
from qvft.data.features.key import KEY_BYTES
from qvft.errors import DataError
from qvft.json_files import read_json

PRUNE = "run `python -m qvft.features prune --damaged` and fill the cache again"


@dataclass(frozen=True)
class Index:
    """What a shard holds.

    Attributes:
        name: of the shard, without the files' endings.
        keys: of its records, in order.
        checksums: CRC-32 of each record's key and payload.
        sha256: hex, of the file of records, then of its keys.
    """

    name: str
    keys: tuple[bytes, ...]
    checksums: tuple[int, ...]
    sha256: str


def index_json(index: Index) -> dict[str, Any]:
    """An index as its file keeps it."""
    return {
        "keys": [key.hex() for key in index.keys],
        "crc32": list(index.checksums),
        "sha256": index.sha256,
    }


def read_index(folder: Path, name: str) -> Index:
    """The index of a shard.

    Raises:
        DataError: its file is no such index.
    """
    path = folder / f"{name}{INDEX}"
    content = read_json(path)
    try:
        keys = tuple(map(bytes.fromhex, content["keys"]))
        index = Index(name, keys, tuple(content["crc32"]), content["sha256"])
        fits = len(keys) == len(index.checksums) > 0 and {*map(len, keys)} == {KEY_BYTES}
        fits = fits and {*map(type, index.checksums)} == {int}
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise DataError("damaged: no index of features", where=str(path), do=PRUNE)
    return index


def require_length(folder: Path, index: Index, record_bytes: int) -> None:
    """Checks that a shard's file of records is there and as long as its index says.

    Raises:
        DataError: it is not.
    """
    path, expected = folder / f"{index.name}{RECORDS}", len(index.keys) * record_bytes
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"damaged: {error.strerror}", where=str(path), do=PRUNE) from error
    if found != expected:
        raise DataError(
            f"damaged: {found} bytes", where=str(path), expected=str(expected), do=PRUNE
        )


def require_content(folder: Path, index: Index) -> int:
    """Checks a shard bit by bit and returns the bytes of its records.

    Raises:
        DataError: its file of records is missing, or not what was written.
    """
    path, digest, length = folder / f"{index.name}{RECORDS}", hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                length += len(block)
    except OSError as error:
        raise DataError(f"damaged: {error.strerror}", where=str(path), do=PRUNE) from error
    for key in index.keys:
        digest.update(key)
    if digest.hexdigest() != index.sha256:
        raise DataError("damaged: not what was written", where=str(path), do=PRUNE)
    return length
