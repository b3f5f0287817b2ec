"""Tar shards as WebDataset has them: members `KEY.jpg` and `KEY.json` or `KEY.txt`, side by side.

Members are found by their headers and read where they lie; nothing is unpacked, and no member's
name becomes a path. An image's bytes are read when it is decoded, so that a shuffled buffer of
records holds places and texts alone.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import BinaryIO

from PIL import Image

from qvft.data.archive_members import tar_member
from qvft.data.formats import fields, jsonl
from qvft.data.formats.shards import shard_files, shard_names
from qvft.data.sample import Sample
from qvft.data.stream import Part
from qvft.errors import DataError, ImageError
from qvft.files import json_object, sha256_json

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})
TEXTS = frozenset({"json", "txt"})
_TEXT_KEYS = ("captions", "questions", "question")
_BLOCK = 512
_BROKEN = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image in an uncompressed tar, by its place."""

    shard: Path
    member: str
    start: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.shard}, {self.member}"

    def encoded(self) -> bytes:
        """The image file as it was packed."""
        with self.shard.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.size)
        if len(content) != self.size:
            raise ImageError("the shard has become shorter", where=self.name, do="pack it again")
        return content

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded()))


@dataclass
class _Record:
    """The members of a key: their names and places by the ending."""

    key: str
    members: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    problem: DataError | None = None


@dataclass(frozen=True)
class TarShards:
    """Shards to be passed over again and again.

    Attributes:
        shards: the files.
        names: what samples of each are called by.
    """

    shards: tuple[Path, ...]
    names: tuple[str, ...]

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        """One part of a pass, shards in the pass's order; a broken record comes as its error."""
        order = list(range(len(self.shards)))
        if part.shuffled:
            Random(f"{part.seed} {part.number}").shuffle(order)
        if len(order) % part.world == 0:
            for place in order[part.rank :: part.world]:
                yield from self._of(place)
            return
        number = 0  # records are dealt where shards do not come out even
        for place in order:
            for record in _records(self.shards[place]):
                if number % part.world == part.rank:
                    yield self._read(place, record)
                number += 1

    @property
    def sha256(self) -> str:
        """Hex SHA-256 over the shards' names and sizes; their content is not read for it."""
        sizes = [shard.stat().st_size for shard in self.shards]
        return sha256_json([list(self.names), sizes])

    def _of(self, place: int) -> Iterator[Sample | DataError]:
        for record in _records(self.shards[place]):
            yield self._read(place, record)

    def _read(self, place: int, record: _Record) -> Sample | DataError:
        try:
            return _sample(record, self.shards[place], self.names[place])
        except DataError as error:
            return error


def stream(path: Path, *, split: str | None = None) -> TarShards:
    """The shards that `path` means; see `shards.shard_files`, whose errors it raises."""
    shards = shard_files(path, split=split)
    return TarShards(tuple(shards), tuple(shard_names(shards)))


def read(path: Path, *, split: str | None = None) -> Iterator[Sample]:
    """The samples of all shards in order.

    Args:
        path, split: as `shards.shard_files`.

    Raises:
        DataError: no shard, or whatever is wrong with a record; it names shard and member.
    """
    for found in stream(path, split=split).samples(Part(0, 0, 0, 1, shuffled=False)):
        if isinstance(found, DataError):
            raise found
        yield found


def _records(shard: Path) -> Iterator[_Record]:
    """Members of equal key that follow one another; a shard that breaks off ends with a problem."""
    record: _Record | None = None
    seen: set[str] = set()
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # tarfile would keep them all
                try:
                    name = tar_member(member, where=str(shard))
                except DataError as error:
                    if record is not None:
                        yield record
                    record = None
                    yield _Record("", problem=error)
                    continue
                if name is None:
                    continue
                folder, _, base = name.rpartition("/")
                stem, _, ending = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if record is None or record.key != key:
                    if record is not None:
                        yield record
                    record = _Record(key)
                    if key in seen:
                        record.problem = _twice(key, shard)
                    seen.add(key)
                _add(record, ending.lower(), (name, member.offset_data, member.size), shard)
            _require_end(file, archive.offset)
    except _BROKEN as error:
        # The last record may lack members that stood behind the break.
        place = str(shard) if record is None else f"{shard}, from {record.key} on"
        problem = DataError(
            f"cannot be read as a tar ({str(error) or type(error).__name__})",
            where=place,
            expected="a whole tar that is not compressed",
            do="pack it again, or unpack the compression (gzip -d)",
        )
        record = _Record("", problem=problem)
    if record is not None:
        yield record


def _add(record: _Record, ending: str, place: tuple[str, int, int], shard: Path) -> None:
    name = place[0]
    if ending in record.members:
        record.problem = DataError(
            f"two members end in .{ending}", where=f"{shard}, {record.key}", do="leave one out"
        )
    elif ending not in IMAGES | TEXTS:
        record.problem = record.problem or DataError(
            f"the member {name!r}",
            where=f"{shard}, {record.key}",
            expected="KEY.jpg (or another image), KEY.json, KEY.txt, the key without a dot",
            do="pack these alone",
        )
    record.members[ending] = place


def _twice(key: str, shard: Path) -> DataError:
    return DataError(
        "the key stands twice",
        where=f"{shard}, {key}",
        expected="members of a key side by side, each key once in a shard",
        do="sort the members by name (tar --sort=name)",
    )


def _require_end(file: BinaryIO, offset: int) -> None:
    """tarfile takes any broken header for the end, and all after it would be lost silently."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK or block.strip(b"\0"):
        raise tarfile.ReadError("a broken header, or cut off at the end")


def _sample(record: _Record, shard: Path, shard_name: str) -> Sample:
    where = f"{shard}, {record.key}"
    if record.problem is not None:
        raise record.problem
    images = [ending for ending in record.members if ending in IMAGES]
    if len(images) != 1:
        raise DataError(
            f"{len(images) or 'no'} image{'s' if images else ''} of this key",
            where=where,
            expected="one, KEY.jpg or KEY.png",
            do="pack texts and image side by side, under one key",
        )
    row = _texts(record, shard, where=where)
    name, start, size = record.members[images[0]]
    return jsonl.record(
        row, TarImage(shard, name, start, size), name=f"{shard_name}/{record.key}", where=where
    )


def _texts(record: _Record, shard: Path, *, where: str) -> dict:
    """The record of `KEY.json`, or the caption of `KEY.txt`."""
    if "txt" not in record.members and "json" not in record.members:
        raise DataError(
            "neither KEY.json nor KEY.txt",
            where=where,
            expected="one of them beside the image",
            do="pack the texts side by side with their image",
        )
    row: dict = {}
    if "json" in record.members:
        name = record.members["json"][0]
        row = json_object(_text(record, "json", shard), where=f"{shard}, {name}")
    if "txt" not in record.members:
        return row
    if any(key in row for key in _TEXT_KEYS):
        raise DataError(
            "texts in KEY.json and a caption in KEY.txt",
            where=where,
            expected="texts in one of the two",
            do="move the caption into KEY.json",
        )
    return {"caption": fields.text(_text(record, "txt", shard), "KEY.txt", where=where)}


def _text(record: _Record, ending: str, shard: Path) -> str:
    name, start, size = record.members[ending]
    with shard.open("rb") as file:
        file.seek(start)
        content = file.read(size)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 at byte {error.start}", where=f"{shard}, {name}", expected="UTF-8"
        ) from error
