"""Walking a tar by its headers: plain files by name and place, and where it breaks off."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from qvft.data.archive_members import tar_member
from qvft.errors import DataError

_BLOCK = 512
_BROKEN = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in a tar: its name, and where its content lies in bytes."""

    name: str
    start: int
    size: int


def members(file: BinaryIO, *, where: str) -> Iterator[Member | DataError]:
    """The plain files of a tar that is not compressed, in order; folders are passed over.

    A member that is none (see `archive_members.tar_member`) comes as its error, and so does the
    place where the tar breaks off, as the last. The file may be read elsewhere in between.
    """
    last = ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all
                last = member.name
                try:
                    name = tar_member(member, where=where)
                except DataError as error:
                    yield error
                    continue
                if name is not None:
                    yield Member(name, member.offset_data, member.size)
            _require_end(file, archive.offset)
    except _BROKEN as error:
        yield DataError(
            f"cannot be read as a tar ({str(error) or type(error).__name__})",
            where=f"{where}, behind {last!r}" if last else where,
            expected="a whole tar that is not compressed",
            do="pack it again, or unpack the compression (gzip -d)",
        )


def _require_end(file: BinaryIO, offset: int) -> None:
    """tarfile takes any broken header for the end, and all after it would be lost silently."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK or block.strip(b"\0"):
        raise tarfile.ReadError("a broken header, or cut off at the end")
