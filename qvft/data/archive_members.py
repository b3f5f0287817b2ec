"""Members of an archive by their names: plain files inside it, and nothing else."""

from __future__ import annotations

import tarfile
from pathlib import PurePosixPath

from qvft.errors import DataError

MAX_MEMBER_BYTES = 400_000_000
"""Largest member read unless told otherwise; `images.decoding.MAX_BYTES` holds for its image."""


def tar_member(
    member: tarfile.TarInfo, *, where: str, max_bytes: int = MAX_MEMBER_BYTES
) -> str | None:
    """The name of a member that is a plain file; None for a folder.

    Members are read as streams and never written, but a link or a device would stand for something
    outside the archive, and names become ids and, with whoever unpacks them, paths.

    Args:
        member: as the archive's header describes it.
        where: the archive, for messages.
        max_bytes: of its content.

    Raises:
        DataError: a link, a device, a pipe, a sparse or oversized file, or a name that leads out.
    """
    name = inner_name(member.name, where=where)
    if member.isdir():
        return None
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise DataError(
            f"the member {name[:80]!r} is a link, a device or sparse",
            where=where,
            expected="plain files",
            do="pack the files themselves (tar --dereference)",
        )
    if not 0 <= member.size <= max_bytes:
        raise DataError(
            f"the member {name[:80]!r} has {member.size:,} bytes",
            where=where,
            expected=f"at most {max_bytes:,}",
            do="leave it out",
        )
    return name


def inner_name(name: str, *, where: str) -> str:
    """A member's name, which stays inside whatever folder it is joined to.

    Raises:
        DataError: it is absolute, leads out, is empty, or has a character that no name has.
    """
    path = PurePosixPath(name)
    odd = "\\" in name or any(not character.isprintable() for character in name)
    drive = len(name) > 1 and name[1] == ":"
    if not path.parts or path.is_absolute() or ".." in path.parts or drive or odd:
        raise DataError(
            f"a member is called {name[:80]!r}",
            where=where,
            expected="relative names with / between folders",
            do="pack the folder again from inside it",
        )
    return name
