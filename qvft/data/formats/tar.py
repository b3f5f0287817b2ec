"""WebDataset tar shards: `KEY.jpg` with `KEY.json` or `KEY.txt`, listed or streamed.

Members are located by their headers and read in place; nothing is unpacked, and no member's name
becomes a path. An image's bytes are read when it is decoded, so a shuffle buffer holds only offsets
and texts.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random

from PIL import Image

from qvft.data.formats import fields, jsonl
from qvft.data.formats.format import Format
from qvft.data.formats.shards import shard_files, shard_names
from qvft.data.sample import Sample
from qvft.data.stream import Part
from qvft.errors import DataError, ImageError
from qvft.json_files import json_object, sha256_json

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})
TEXTS = frozenset({"json", "txt"})
MAX_MEMBER_BYTES = 400_000_000
_TEXT_KEYS = ("captions", "questions", "question", "pairs", "chosen", "rejected")
_BROKEN = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class TarImage:
    """A member of an uncompressed tar, by its byte offset."""

    shard: Path
    member: str
    start: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.shard}, {self.member}"

    def encoded(self) -> bytes:
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
    """Members of a key by extension, or what is wrong with them."""

    key: str
    members: dict[str, TarImage] = field(default_factory=dict)
    problem: DataError | None = None


@dataclass(frozen=True)
class TarShards:
    """Streamed shards; a `data.stream.Stream`. `names` are the id prefixes of their samples."""

    shards: tuple[Path, ...]
    names: tuple[str, ...]

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        """One part of a pass; a broken record is yielded as its error."""
        order = list(range(len(self.shards)))
        if part.shuffled:
            Random(f"{part.seed} {part.number}").shuffle(order)
        even = len(order) % part.world == 0  # otherwise records are divided instead of shards
        if even:
            order = order[part.rank :: part.world]
        records = ((place, one) for place in order for one in _records(self.shards[place]))
        for number, (place, record) in enumerate(records):
            if even or number % part.world == part.rank:
                try:
                    yield _sample(record, self.shards[place], self.names[place])
                except DataError as error:
                    yield error

    @property
    def sha256(self) -> str:
        """Hex SHA-256 over the shards' names and sizes, without reading their content."""
        sizes = [shard.stat().st_size for shard in self.shards]
        return sha256_json([list(self.names), sizes])


def stream(path: Path, *, split: str | None = None) -> TarShards:
    """The shards of `path` as a stream; arguments and errors as `shards.shard_files`."""
    shards = shard_files(path, split=split)
    return TarShards(tuple(shards), tuple(shard_names(shards)))


def read(path: Path, *, split: str | None = None) -> Iterator[Sample]:
    """The samples of all shards in order; arguments as `shards.shard_files`."""
    for found in stream(path, split=split).samples(Part(0, 0, 0, 1, shuffled=False)):
        if isinstance(found, DataError):
            raise found
        yield found


def _records(shard: Path) -> Iterator[_Record]:
    """Consecutive members with equal key.

    If a member is refused or the shard is truncated, the preceding record may be incomplete: both
    are one error.
    """
    record: _Record | None = None
    seen: set[str] = set()
    last = ""
    try:
        with tarfile.open(shard, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all
                last = member.name
                if (problem := _member_problem(member, str(shard))) is not None:
                    record = None
                    yield _Record("", problem=problem)
                    continue
                if member.isdir():
                    continue
                folder, slash, base = last.rpartition("/")
                stem, _, ending = base.partition(".")  # the key ends at the first dot
                key = f"{folder}{slash}{stem}"
                if record is None or record.key != key:
                    if record is not None:
                        yield record
                    record = _Record(key, problem=_twice(shard, key) if key in seen else None)
                    seen.add(key)
                image = TarImage(shard, last, member.offset_data, member.size)
                _add(record, ending.lower(), image)
            # tarfile takes a broken header for the end, which would lose the rest silently.
            assert archive.fileobj is not None, "it was opened for reading"
            archive.fileobj.seek(archive.offset)
            block = archive.fileobj.read(tarfile.BLOCKSIZE)
            if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
                raise tarfile.ReadError("a broken header, or cut off at the end")
    except _BROKEN as error:
        problem = DataError(
            f"cannot be read as a tar ({str(error) or type(error).__name__})",
            where=f"{shard}, behind {last!r}" if last else str(shard),
            expected="a complete tar, not compressed",
            do="pack it again, or unpack the compression (gzip -d)",
        )
        record = _Record("", problem=problem)
    if record is not None:
        yield record


def _member_problem(member: tarfile.TarInfo, where: str) -> DataError | None:
    """Refuses links, devices and unsafe names: names become ids and, when unpacked, paths."""
    name, path = member.name, PurePosixPath(member.name)
    odd = "\\" in name or not name.isprintable() or name[1:2] == ":"
    if not path.parts or path.is_absolute() or ".." in path.parts or odd:
        return DataError(
            f"a member is called {name[:80]!r}",
            where=where,
            expected="relative names with / between folders",
            do="pack the folder again from inside it",
        )
    plain = member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
    if not plain or not 0 <= member.size <= MAX_MEMBER_BYTES:
        return DataError(
            f"the member {name[:80]!r} is a link, a device, sparse or above 400 MB",
            where=where,
            expected="plain files",
            do="pack the files themselves (tar --dereference)",
        )
    return None


def _add(record: _Record, ending: str, member: TarImage) -> None:
    if ending in record.members:
        record.problem = _twice(member.shard, record.key)
    elif ending not in IMAGES | TEXTS:
        record.problem = record.problem or DataError(
            f"the member {member.member!r}",
            where=f"{member.shard}, {record.key}",
            expected="KEY.jpg (or another image), KEY.json, KEY.txt, the key without a dot",
            do="pack these alone",
        )
    record.members[ending] = member


def _twice(shard: Path, key: str) -> DataError:
    return DataError(
        "the key occurs twice",
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
    row = _texts(record.members, where=where)
    image = record.members[images[0]]
    return jsonl.record(row, image, name=f"{shard_name}/{record.key}", where=where)


def _texts(members: dict[str, TarImage], *, where: str) -> dict:
    """The record of `KEY.json`, or the caption of `KEY.txt`."""
    if not members.keys() & TEXTS:
        raise DataError(
            "neither KEY.json nor KEY.txt",
            where=where,
            expected="one of them with the image",
            do="pack the texts side by side with their image",
        )
    row: dict = {}
    if "json" in members:
        row = json_object(_text(members["json"]), Path(members["json"].name))
    if "txt" not in members:
        return row
    if any(key in row for key in _TEXT_KEYS):
        raise DataError(
            "texts in KEY.json and a caption in KEY.txt",
            where=where,
            expected="texts in one of the two",
            do="move the caption into KEY.json",
        )
    return {"caption": fields.text(_text(members["txt"]), "KEY.txt", where=where)}


def _text(member: TarImage) -> str:
    try:
        return member.encoded().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 at byte {error.start}",
            where=member.name,
            expected="UTF-8",
            do="save the text again as UTF-8",
        ) from error


FORMAT = Format(
    "tar", "WebDataset tar shards: images and texts side by side", read, ("split",), stream=stream
)
