"""Durable writes (fsync, then atomic rename) and errors of a full or read-only disk.

The one home of the rule that a file or folder gets its name only once all of it is on the disk.
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
"""Errors that come from the disk or its limits, never from a mistake in a program."""
_OF_TORCH = "PytorchStreamWriter|unexpected pos"


def to_disk(file: IO[Any]) -> None:
    """Waits until what was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def folder_to_disk(folder: Path) -> None:
    """Makes the names in a folder outlast a loss of power, where the system lets a folder be."""
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
    """Waits until a file, or all files and names of a folder, are on the disk."""
    if not path.is_dir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return
    for inner in path.iterdir():
        if not inner.is_symlink():
            tree_to_disk(inner)
    folder_to_disk(path)


def name_whole(partial: Path, path: Path) -> None:
    """Gives a finished file or folder its name, in one step and for good.

    A file of that name is replaced; a folder may only be an empty one.
    """
    tree_to_disk(partial)
    os.replace(partial, path)
    folder_to_disk(path.parent)


def remove_whole(path: Path) -> None:
    """Removes a folder so that nobody ever finds half of it under its name."""
    aside = path.with_name(f".{path.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yields a fresh folder that takes the place of `path` if the block ends without an error.

    Whenever this is cut short, the folder from before is there whole: under its name, or aside,
    from where the next call takes it back. Callers see to it that they are alone, see `locks`.
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
    """The error for a place where nothing can be written."""
    return DataError(
        f"cannot be written ({error.strerror or error})",
        where=str(path),
        do="name a file in a folder that you can write to, with room on its disk",
    )


@contextlib.contextmanager
def saving(path: Path, *, kept: str) -> Iterator[None]:
    """Turns what the system says against writing `path` into an error for users.

    Args:
        path: named in the message.
        kept: what is safe all the same, and how to go on.

    Raises:
        FailedError: the disk or a quota is full, the folder has gone or may only be read.
    """
    try:
        yield
    except QvftError:
        raise
    except Exception as error:
        said = disk_failure(error) or (error.strerror if isinstance(error, OSError) else None)
        if said is None:
            raise
        raise FailedError(f"{path}: cannot be written ({said}); {kept}.") from error


def disk_failure(error: BaseException) -> str | None:
    """What the disk said, where an error is the disk's; None where it is any other.

    torch says only that it failed.
    """
    number = error_number(error)
    if number is not None and number in _OF_THE_DISK:
        return os.strerror(number)
    if isinstance(error, RuntimeError) and re.search(_OF_TORCH, str(error)):
        return "torch wrote a part of a file; the disk may be full"
    return None


def error_number(error: BaseException) -> int | None:
    """The system's number of an error (`errno`), which safetensors says in words; else None."""
    if type(error).__name__ == "SafetensorError":  # importing it takes time
        said = re.search(r"\(os error (\d+)\)", str(error))
        return int(said[1]) if said else None
    return error.errno if isinstance(error, OSError) else None
