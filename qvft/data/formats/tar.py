"""Tar shards as WebDataset has them: members `KEY.jpg` and `KEY.json` or `KEY.txt`, side by side.

Members are found by their headers and read where they lie; nothing is unpacked, and no member's
name becomes a path. An image's bytes are read when it is decoded, so that a shuffled buffer of
records holds places and texts alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import BinaryIO

from PIL import Image

from qvft.data.formats import fields, jsonl
from qvft.data.formats.format import Format
from qvft.data.formats.shards import shard_files, shard_names
from qvft.data.formats.tar_members import Member, members
from qvft.data.sample import Sample
from qvft.data.stream import Part
from qvft.errors import DataError, ImageError
from qvft.json_files import json_object, sha256_json

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})
TEXTS = frozenset({"json", "txt"})
_TEXT_KEYS = ("captions", "questions", "question")


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
    """The members of a key by their endings; texts are read before the next record is asked for."""

    key: str
    file: BinaryIO | None
    members: dict[str, Member] = field(default_factory=dict)
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
    """Members of equal key that follow one another.

    Where a member is refused or the shard breaks off, the record before may lack members: it is
    one problem with it.
    """
    try:
        file = shard.open("rb")
    except OSError as error:
        yield _Record("", None, problem=DataError(error.strerror or str(error), where=str(shard)))
        return
    record: _Record | None = None
    seen: set[str] = set()
    with file:
        for member in members(file, where=str(shard)):
            if isinstance(member, DataError):
                record = None
                yield _Record("", file, problem=member)
                continue
            key, ending = _key(member.name)
            if record is None or record.key != key:
                if record is not None:
                    yield record
                record = _Record(key, file)
                if key in seen:
                    record.problem = _twice(key, shard)
                seen.add(key)
            _add(record, ending, member, shard)
        if record is not None:
            yield record


def _key(name: str) -> tuple[str, str]:
    """`a/b`, `jpg` of `a/b.jpg`: up to the first dot behind the last /, and what follows it."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _add(record: _Record, ending: str, member: Member, shard: Path) -> None:
    where = f"{shard}, {record.key}"
    if ending in record.members:
        record.problem = DataError(f"two members end in .{ending}", where=where, do="leave one out")
    elif ending not in IMAGES | TEXTS:
        record.problem = record.problem or DataError(
            f"the member {member.name!r}",
            where=where,
            expected="KEY.jpg (or another image), KEY.json, KEY.txt, the key without a dot",
            do="pack these alone",
        )
    record.members[ending] = member


def _twice(key: str, shard: Path) -> DataError:
    return DataError(
        "the key stands twice",
        where=f"{shard}, {key}",
        expected="members of a key side by side, each key once in a shard",
        do="sort the members by name (tar --sort=name)",
    )


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
    packed = record.members[images[0]]
    image = TarImage(shard, packed.name, packed.start, packed.size)
    return jsonl.record(row, image, name=f"{shard_name}/{record.key}", where=where)


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
        place = f"{shard}, {record.members['json'].name}"
        row = json_object(_text(record, "json", shard), where=place)
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
    member = record.members[ending]
    assert record.file is not None, "a record of members has its shard open"
    record.file.seek(member.start)
    content = record.file.read(member.size)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 at byte {error.start}",
            where=f"{shard}, {member.name}",
            expected="UTF-8",
            do="save the text again as UTF-8",
        ) from error


FORMAT = Format(
    "tar", "WebDataset tar shards: images and texts side by side", read, ("split",), stream=stream
)
