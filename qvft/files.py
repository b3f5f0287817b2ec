"""Reading and writing files so that mistakes are named and nothing is left half-written."""

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

from qvft.disk import folder_to_disk, name_whole, not_written, to_disk
from qvft.errors import DataError, SpaceError
from qvft.locks import beside


def expanded(path: str | Path) -> Path:
    """The path with `~` as the home folder.

    Raises:
        DataError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            "there is no such home folder", where=str(path), do="write the path without ~"
        ) from error


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, without a byte order mark.

    Raises:
        DataError: the file is missing, a folder, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), do="check the path") from error
    except IsADirectoryError as error:
        raise DataError(
            "a folder", where=str(path), expected="a file", do="name the file in it"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror or error})", where=str(path), do="check the path"
        ) from error
    except UnicodeDecodeError as error:
        wide = error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise DataError(
            "UTF-16" if wide else f"not UTF-8 at byte {error.start}",
            where=f"{path}:{error.object.count(10, 0, error.start) + 1}",
            expected="UTF-8",
            do="save it again as UTF-8 (in Excel: `CSV UTF-8`)",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` in one step: a reader sees the old content or the new, whole.

    Links are followed and stay. A device, a pipe or the file that stdout goes to has no old
    content to keep: the text is written after what went there before.
    """
    stream = _stream(path)
    if stream is not None:
        with open(stream, "w", encoding="utf-8", closefd=isinstance(stream, Path)) as opened:
            opened.write(text)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("w", encoding="utf-8") as opened:
            opened.write(text)
            to_disk(opened)
        os.replace(partial, path)
        folder_to_disk(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def require_writable(path: Path) -> None:
    """Checks, before anything long begins, that `write_text` can write to `path`; leaves nothing.

    Raises:
        DataError: it cannot.
    """
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
        raise not_written(error, path) from error


def _partial(path: Path) -> Path:
    """The file or folder, beside `path`, that takes its name when it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _stream(path: Path) -> int | Path | None:
    """What to open for a device, a pipe or the file of stdout or stderr; None for other files.

    Stdout and stderr are opened by their number, so that what they get later stands after it.
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
    """Yields a path beside `path`; what is written there takes its name if no error ends the block.

    Raises:
        DataError: `path` exists: outputs are never overwritten.
    """
    if path.exists():
        raise DataError(
            "exists already", where=str(path), do="name a new file; nothing is overwritten"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        name_whole(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_new_folder(path: Path) -> None:
    """Checks that `path` is free, or an empty folder: outputs are never overwritten.

    Raises:
        DataError: it is not.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(
            "exists already", where=str(path), do="name a new folder; nothing is overwritten"
        )


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a fresh folder that takes the name `path` only if the block ends without an error.

    Raises:
        DataError: `path` exists and is not an empty folder (outputs are never overwritten), or
            cannot be written.
        BusyError: another process is writing it.
    """
    with beside(path):
        require_new_folder(path)
        partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        try:
            yield partial
            name_whole(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def require_space(folder: Path, needed_bytes: int) -> None:
    """Checks that the disk holding `folder` has `needed_bytes` free.

    Raises:
        SpaceError: it has not.
    """
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
