"""Writing shards, each whole or not at all, and reading them through memory maps.

Shape letters: P patches, W ViT width.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.codec import from_record, to_record
from qvft.data.features.folders import INDEX, RECORDS
from qvft.data.features.index import PRUNE, Index, index_json
from qvft.disk import not_written
from qvft.errors import DataError, QvftError, SpaceError
from qvft.files import new_file

Record = tuple[bytes, Tensor]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Growing:
    """A shard while it is written; its records go to the disk as they come."""

    def __init__(self, space: FeatureSpec, file: IO[bytes]) -> None:
        self._space, self._file, self._digest = space, file, hashlib.sha256()
        self._keys: list[bytes] = []
        self._checksums: list[int] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes, features: Tensor) -> None:
        """Appends features (P, W)."""
        payload = to_record(self._space, features).numpy().data
        for part in (payload, bytes(self._space.record_bytes - self._space.payload_bytes)):
            self._file.write(part)
            self._digest.update(part)
        self._keys.append(key)
        self._checksums.append(zlib.crc32(payload, zlib.crc32(key)))

    def index(self, name: str) -> Index:
        """What the shard holds; nothing is added afterwards."""
        for key in self._keys:
            self._digest.update(key)
        return Index(name, tuple(self._keys), tuple(self._checksums), self._digest.hexdigest())


@contextmanager
def new_shard(folder: Path, space: FeatureSpec, name: str) -> Iterator[Growing]:
    """Yields a shard that can be seen only once the block has ended without an error.

    Its records are on the disk before its index is, and the index before the block is left.

    Raises:
        SpaceError: the disk or the quota is full.
        DataError: the folder cannot be written to.
    """
    try:
        with new_file(folder / f"{name}{RECORDS}") as partial, partial.open("xb") as file:
            shard = Growing(space, file)
            yield shard
        text = json.dumps(index_json(shard.index(name)))
        with new_file(folder / f"{name}{INDEX}") as partial, partial.open("xb") as file:
            file.write(text.encode())
    except QvftError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SpaceError(
                f"no room left ({error.strerror}); the shards written before are whole",
                where=str(folder),
                do="free some room and start again: it goes on where it stopped",
            ) from error
        raise not_written(error, folder / name) from error


def write_shards(
    folder: Path,
    space: FeatureSpec,
    chunks: Iterator[Sequence[Record]],
    *,
    records: int,
    seconds: float,
    rank: int = 0,
) -> Iterator[Index]:
    """Writes chunks of records into new shards; yields the index of each as soon as it is there.

    A chunk is never divided among shards. If `chunks` raises, the shard is closed with what it
    has before the error goes on.

    Args:
        records: a shard is closed once it holds as many, or more.
        seconds: ... or once it has been open for so long, so that slow encoders lose little.
        rank: only a part of the shards' names; what keeps them apart is drawn at random.
    """
    stopped: BaseException | None = None
    first = next(chunks, None)
    while first is not None:
        name = f"{rank:05d}-{uuid.uuid4().hex}"
        with new_shard(folder, space, name) as shard:
            closing = time.monotonic() + seconds
            chunk: Sequence[Record] | None = first
            while chunk is not None:
                for key, features in chunk:
                    shard.add(key, features)
                if len(shard) >= records or time.monotonic() >= closing:
                    break
                try:
                    chunk = next(chunks, None)
                except BaseException as error:
                    stopped, chunk = error, None
        yield shard.index(name)
        if stopped is not None:
            raise stopped
        first = next(chunks, None)


class Shard:
    """A whole shard, mapped into memory: what is read of it is loaded, the rest is not.

    Args:
        folder: of its space.
        space: whose features it holds.
        index: what `read_index` gave.
    """

    def __init__(self, folder: Path, space: FeatureSpec, index: Index) -> None:
        self._space, self._index = space, index
        self._path = folder / f"{index.name}{RECORDS}"
        self._map: Tensor | None = None
        self._checked = bytearray(len(index.keys))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # a spawned worker maps the file itself

    def features(self, number: int) -> Tensor:
        """Features (P, W) of a record, whose checksum is compared when it is first read.

        They are a view of the map (int8: float32 of their own) and must not be altered: the file
        would stay as it is, but later reads of this process would see the change.

        Raises:
            DataError: the record is damaged, or the shard is gone.
        """
        start = number * self._space.record_bytes
        payload = self._mapped()[start : start + self._space.payload_bytes]
        if not self._checked[number]:
            crc = zlib.crc32(payload.numpy().data, zlib.crc32(self._index.keys[number]))
            if crc != self._index.checksums[number]:
                raise DataError(
                    f"damaged: record {number} is not what was written",
                    where=str(self._path),
                    do=PRUNE,
                )
            self._checked[number] = 1
        return from_record(self._space, payload)

    def _mapped(self) -> Tensor:
        if self._map is None:
            size = len(self._index.keys) * self._space.record_bytes
            try:
                # Unlike numpy's and Python's maps it keeps no file descriptor: shards are many.
                self._map = torch.from_file(
                    str(self._path), shared=False, size=size, dtype=torch.uint8
                )
            except RuntimeError as error:
                raise DataError(
                    f"cannot be read any more ({error})",
                    where=str(self._path),
                    expected=f"a file of {size} bytes",
                    do="fill the cache again",
                ) from error
            _used_now(self._path.with_name(f"{self._index.name}{INDEX}"))
        return self._map


def _used_now(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:  # a cache that may only be read
        return
