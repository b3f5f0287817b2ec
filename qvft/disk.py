"""Durable writes (fsync, then atomic rename) and errors of a full or read-only disk.

A file or folder gets its name only when it is completely on disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from qvft.errors import DataError, FailedError, QvftError

_OF_THE_DISK = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE", "ENODEV", "ENXIO")
}
"""Error numbers caused by the disk or its limits, never by a bug."""
_OF_TORCH = "PytorchStreamWriter|unexpected pos"


def to_disk(file: IO[Any]) -> None:
    """Flushes an open file to disk (fsync)."""
    file.flush()
    os.fsync(file.fileno())


def folder_to_disk(folder: Path) -> None:
    """Flushes a folder's entries to disk, if the system supports it."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(opened)


def tree_to_disk(path: Path) -> None:
    """Flushes a file, or all files and entries of a folder, to disk."""
    if not path.is_dir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return
    for inner in path.iterdir():
        if not inner.is_symlink():
            tree_to_disk(inner)
    folder_to_disk(path)


def name_whole(partial: Path, path: Path) -> None:
    """Renames a finished file or folder atomically and durably.

    Replaces a file of that name; a folder must be empty.
    """
    tree_to_disk(partial)
    os.replace(partial, path)
    folder_to_disk(path.parent)


def remove_whole(path: Path) -> None:
    """Removes a folder atomically, by renaming it first."""
    aside = path.with_name(f".{path.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Context manager: a new folder that replaces `path` if the block ends without an error.

    After an interruption the previous folder is complete: under its name, or renamed, from where
    the next call restores it. Callers must hold a lock, see `locks`.
    """
    path = Path(os.path.realpath(path))
    partial, aside = (path.with_name(f".{path.name}.{end}") for end in ("partial", "replaced"))
    if aside.exists() and not path.exists():
        aside.rename(path)
    for left in (partial, aside):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        tree_to_disk(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        path.rename(aside)
    partial.rename(path)
    folder_to_disk(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def not_written(error: OSError, path: Path) -> DataError:
    """Error for a path that is not writable."""
    return DataError(
        f"cannot be written ({error.strerror or error})",
        where=str(path),
        do="name a file in a folder that you can write to, with room on its disk",
    )


@contextlib.contextmanager
def saving(path: Path, *, kept: str) -> Iterator[None]:
    """Context manager: turns errors of the disk while writing `path` into `FailedError`.

    `kept` says what is not lost, and how to continue.
    """
    try:
        yield
    except QvftError:
        raise
    except Exception as error:
        cause = disk_failure(error) or (error.strerror if isinstance(error, OSError) else None)
        if cause is None:
            raise
        raise FailedError(f"{path}: cannot be written ({cause}); {kept}.") from error


def disk_failure(error: BaseException) -> str | None:
    """Description of a disk error; None for any other error."""
    number = error_number(error)
    if number is not None and number in _OF_THE_DISK:
        return os.strerror(number)
    if isinstance(error, RuntimeError) and re.search(_OF_TORCH, str(error)):
        return "torch could not write a file; the disk may be full"  # it gives no reason
    return None


def error_number(error: BaseException) -> int | None:
    """The system's number of an error (`errno`), or that in a message of safetensors; else None."""
    if type(error).__name__ == "SafetensorError":  # importing it takes time
        found = re.search(r"\(os error (\d+)\)", str(error))
        return int(found[1]) if found else None
    return error.errno if isinstance(error, OSError) else None
