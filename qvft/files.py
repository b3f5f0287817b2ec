"""Reads and writes files: clear errors, atomic writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qvft.disk import name_whole, not_written
from qvft.errors import DataError, SpaceError, UserError
from qvft.locks import beside

_NO_TEXT = {
    b"PK\x03\x04": "a zip archive (or an Excel or Word file)",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh9": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"PAR1": "a parquet file",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
}
"""Beginnings of files that are taken for text by mistake, and what they are."""


def expanded(path: str) -> str:
    """A path with `~` or `~name` expanded, of recipe keys and command lines; `$NAME` is not.

    Raises UserError without home folder, for an empty path, or one that begins with a `$NAME` that
    is not there. It is no ValueError, whose message argparse would replace.
    """
    if not path:
        do = "set the variable, if it comes from one of the shell"
        raise UserError("an empty path", where="command line or recipe", do=do)
    first = Path(path).parts[0] if path.startswith("$") else ""
    if first and not os.path.lexists(first):
        do = "write the path, or leave out the quotes around it on the command line"
        raise UserError(f"{first} is not there, and no variable is replaced", where=path, do=do)
    found = os.path.expanduser(path)
    if found == "~" or found.startswith("~/"):
        raise UserError("there is no home folder", where=path, do="write the path without ~")
    return found


def given_path(path: str) -> Path:
    """As `expanded`; the type of an argument that is a path."""
    return Path(expanded(path))


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, without a byte order mark.

    Raises DataError if it is missing, a folder, not readable or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), do="check the path") from error
    except IsADirectoryError as error:
        do = "name the file in it"
        raise DataError("a folder", where=str(path), expected="a file", do=do) from error
    except OSError as error:
        given = f"cannot be read ({error.strerror or error})"
        raise DataError(given, where=str(path), do="check the path") from error
    except UnicodeDecodeError as error:
        _require_text(error.object, path)
        wide = error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise DataError(
            "UTF-16" if wide else f"not UTF-8 at byte {error.start}",
            where=f"{path}:{error.object.count(10, 0, error.start) + 1}",
            expected="UTF-8",
            do="save it again as UTF-8 (in Excel: `CSV UTF-8`)",
        ) from error
    if text.startswith("PK"):  # a short archive may happen to be UTF-8
        _require_text(text[:4].encode(), path)
    return text


def _require_text(content: bytes, path: Path) -> None:
    kind = next((kind for head, kind in _NO_TEXT.items() if content.startswith(head)), None)
    if kind is not None:
        raise DataError(
            f"{kind}, not text",
            where=str(path),
            expected="a text file in UTF-8",
            do="unpack it or export it as text, and name that file",
        )


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` atomically.

    Symbolic links are followed. To a device, a pipe or the file of stdout the text is appended.
    """
    stream = _stream(path)
    if stream is not None:
        with open(stream, "w", encoding="utf-8", closefd=isinstance(stream, Path)) as opened:
            opened.write(text)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def require_writable(path: Path, *, folder: bool = False) -> None:
    """Checks that `path`, a file or a folder, is writable before anything long begins; leaves
    nothing.

    Raises DataError if not, or for a folder in place of a file, or the other way round.
    """
    if os.path.exists(path) and path.is_dir() != folder:
        raise DataError(
            "a file" if folder else "a folder",
            where=str(path),
            expected="a folder to write to" if folder else "a file to write",
            do="name another one" if folder else "this is a folder: name a file in it",
        )
    try:
        if _stream(path) is not None:  # to open a pipe would wait for its reader
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        target = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            os.lstat(_partial(target))  # complains of names that are too long or below a file
        with tempfile.TemporaryFile(dir=next(one for one in target.parents if one.exists())):
            pass
    except OSError as error:
        above = next((one for one in path.parents if one.is_file()), None)
        if isinstance(error, NotADirectoryError) and above is not None:
            error = NotADirectoryError(errno.ENOTDIR, f"{above} is a file, not a folder")
        raise not_written(error, path) from error


def require_new(path: Path, *, folder: bool = False) -> None:
    """As `require_writable`, for an output that must not exist yet, except as an empty folder."""
    is_folder = os.path.isdir(path)
    empty = folder and is_folder and not any(path.iterdir())
    if os.path.lexists(path) and is_folder == folder and not empty:
        do = f"name a new {'folder' if folder else 'file'}; nothing is overwritten"
        raise DataError("exists already", where=str(path), do=do)
    require_writable(path, folder=folder)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _stream(path: Path) -> int | Path | None:
    """What to open for a device, a pipe or the file of stdout or stderr; None for other files.

    Stdout and stderr are opened by their number, so that later output follows.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    for number in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            if os.path.samestat(os.fstat(number), found):
                return number
    return None if stat.S_ISREG(found.st_mode) else path


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Context manager: a temporary path that is renamed to `path` if the block ends without an
    error. Raises DataError if `path` exists: outputs are never overwritten.
    """
    require_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial_file(path) as partial:
        yield partial


@contextlib.contextmanager
def _partial_file(path: Path) -> Iterator[Path]:
    partial = _partial(path)
    try:
        yield partial
        name_whole(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Context manager: a new folder that is renamed to `path` if the block ends without an error.

    Raises DataError if `path` exists and is not an empty folder, or cannot be written, BusyError if
    another process is writing it.
    """
    with beside(path):
        require_new(path, folder=True)
        partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        try:
            yield partial
            name_whole(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raises SpaceError if the disk of `folder` has less than `needed_bytes` free."""
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise SpaceError(
            f"{free / 1e9:.2f} GB free",
            where=str(folder),
            expected=f"at least {needed_bytes / 1e9:.2f} GB",
            do="free some room or write elsewhere",
        )


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
