"""Reading and writing files so that mistakes are named and nothing is left half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qvft.errors import DataError, SpaceError
from qvft.json_mistakes import not_json


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: the file is missing, is not UTF-8 or not JSON (with line and column).
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise not_json(error, path) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Pairs (line number from 1, object) of a JSONL file; blank lines are passed over.

    Raises:
        DataError: the file is missing or not UTF-8, or a line is not a JSON object, has a key
            twice or holds NaN, which Python's `json` writes but JSON does not have.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(
                line, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant
            )
        except json.JSONDecodeError as error:
            raise not_json(error, path, line=number) from error
        except _RepeatedKey as error:
            raise DataError(
                f"key `{error}` stands twice",
                where=where,
                expected="each key once",
                do="remove one of the two",
            ) from error
        except _NoJsonNumber as error:
            raise DataError(
                f"`{error}` is no value of JSON", where=where, do="leave out a key without a value"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                "a list" if isinstance(row, list) else f"a {type(row).__name__}",
                where=where,
                expected="a JSON object",
                do="write each object on a line of its own, without [ and ]",
            )
        yield number, row


class _RepeatedKey(Exception):
    """A JSON object has a key twice; `json` would keep the last silently."""


class _NoJsonNumber(Exception):
    """NaN, Infinity or -Infinity."""


def _refuse_constant(name: str) -> None:
    raise _NoJsonNumber(name)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return row


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, without a byte order mark.

    Raises:
        DataError: the file is missing, a folder, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path)) from error
    except IsADirectoryError as error:
        raise DataError("a folder", where=str(path), expected="a file") from error
    except UnicodeDecodeError as error:
        wide = error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise DataError(
            "UTF-16" if wide else f"not UTF-8 at byte {error.start}",
            where=f"{path}:{error.object.count(10, 0, error.start) + 1}",
            expected="UTF-8",
            do="save it again as UTF-8 (in Excel: `CSV UTF-8`)",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` in one step: a reader sees the old content or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a fresh folder that takes the name `path` only if the block ends without an error.

    Raises:
        DataError: `path` exists and is not an empty folder: outputs are never overwritten.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(
            "exists already", where=str(path), do="name a new folder; nothing is overwritten"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rmdir()
        os.replace(partial, path)
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


def sha256_json(content: Any) -> str:
    """Hex SHA-256 of `content` as canonical JSON (sorted keys, no blanks)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
