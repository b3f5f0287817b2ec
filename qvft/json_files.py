"""Reads JSON and JSONL strictly, and writes them atomically."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from qvft.errors import DataError
from qvft.files import read_text, write_text

_LONGEST_NUMBER = 24
"""Characters of a number that a message shows: those of any float's shortest form."""


def read_json(path: Path) -> Any:
    """The content of a JSON file. NaN and Infinity pass: trainers write them into their states.

    Raises DataError if the file cannot be read or is not JSON (with line and column), has a key
    twice in one object, is nested too deeply, or holds a number too long to take.
    """
    return json_of(read_text(path), path)


def json_of(text: str, path: Path, *, line: int | None = None, **hooks: Any) -> Any:
    """As `read_json`, from the text of the file at `path`, or from one `line` of it, with `hooks`
    for `json.loads`.
    """
    where = str(path) if line is None else f"{path}:{line}"

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) == len(pairs):
            return row
        keys = [key for key, _ in pairs]
        raise DataError(
            f"key `{next(key for key in keys if keys.count(key) > 1)}` occurs twice",
            where=where,
            expected="each key once",
            do="remove one of the two",
        )

    try:
        return json.loads(text, object_pairs_hook=without_repeats, **hooks)
    except json.JSONDecodeError as error:
        raise not_json(error, path, line=line) from error
    except DataError:
        raise
    except RecursionError as error:
        raise DataError(
            "nested too deeply",
            where=where,
            expected="a few levels of brackets",
            do="look for brackets that are not closed",
        ) from error
    except ValueError as error:  # `int` refuses so many digits
        raise DataError(
            "a number of thousands of digits", where=where, do="put it in quotes if it is a text"
        ) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Pairs (line number from 1, object) of a JSONL file; blank lines are skipped.

    Raises DataError as `read_json`; or for a line that is no JSON object, or holds NaN, which
    Python's `json` writes but JSON does not have, or a number beyond all floats.
    """
    return jsonl_of(read_text(path), path)


def jsonl_of(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_jsonl`, from the text of the file at `path`."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, json_object(line, path, line=number)


def json_object(text: str, path: Path, *, line: int | None = None) -> dict[str, Any]:
    """A JSON object, read as strictly as a line of JSONL; raises as `read_jsonl`."""
    where = str(path) if line is None else f"{path}:{line}"

    def refuse(written: str) -> NoReturn:
        do = "remove a key without a value"
        raise DataError(f"`{written}` is not a JSON value", where=where, do=do)

    def finite(written: str) -> float:
        value = float(written)
        if math.isinf(value):
            refuse(written if len(written) <= _LONGEST_NUMBER else "Infinity")
        return value

    row = json_of(text, path, line=line, parse_constant=refuse, parse_float=finite)
    if isinstance(row, dict):
        return row
    raise DataError(
        "a list" if isinstance(row, list) else f"a {type(row).__name__}",
        where=where,
        expected="a JSON object",
        do="write one object per line, without [ and ]" if line is not None else None,
    )


def complete_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file that another process may be writing; empty if there is none.

    An incomplete last line, as left by a killed process, is ignored.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.strip() and line.endswith("\n")]


def drop_torn_line(path: Path) -> None:
    """Truncates an incomplete last line, so that the file can be read and appended to."""
    if path.is_file():
        content = path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(path, complete)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, in one step."""
    write_text(path, json_text(content, indent=2) + "\n")


def json_text(content: Any, *, indent: int | None = None) -> str:
    """`content` as JSON in UTF-8, without escapes unless it holds half of a surrogate pair, as file
    names that are not UTF-8 do."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    is_valid = text.encode(errors="replace").decode() == text
    return text if is_valid else json.dumps(content, indent=indent)


def sha256_json(content: Any) -> str:
    """Hex SHA-256 of `content` as canonical JSON (sorted keys, no blanks)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def not_json(error: json.JSONDecodeError, path: Path, *, line: int | None = None) -> DataError:
    """The error for text that is not JSON: the place, what is wrong there and what to do."""
    place, what, do = _mistake(error.doc, error.pos, error.msg, is_line=line is not None)
    number = line or error.doc.count("\n", 0, place) + 1
    column = place - error.doc.rfind("\n", 0, place)
    return DataError(f"not valid JSON: {what} (column {column})", where=f"{path}:{number}", do=do)


def _mistake(text: str, place: int, message: str, *, is_line: bool) -> tuple[int, str, str | None]:
    """Where JSON goes wrong, what people mostly did there, and what to do."""
    before, here = text[:place].rstrip(), text[place:].lstrip()
    if before.endswith(",") and here[:1] in ("}", "]"):
        return len(before) - 1, "a comma before the closing bracket", "remove the comma"
    if here[:1] == "," and here[1:].lstrip()[:1] in ("}", "]"):  # where Python 3.13 points to
        return place, "a comma before the closing bracket", "remove the comma"
    if is_line and not here and (text.lstrip().startswith("[") or text.strip() == "{"):
        return place, "a value over several lines", "write each object on one line, without [ and ]"
    if is_line and not before and here[:1] not in ("[", "{", "\ufeff", "\0"):
        return place, "no object", 'write {"image": "...", ...} on each line, and nothing else'
    if message.startswith("Extra data"):
        if is_line and here.startswith(","):
            return place, "a comma after the object", "remove the comma: a line is one object"
        do = "write one object a line" if is_line else "write one list: [..., ...]"
        return place, "a second value", do
    for start, what, do in _MISTAKES:
        if here.startswith(start) if start else not here:
            return place, what, do
    for start, what, do in _COMPLAINTS:
        if message.startswith(start):
            return place, what, do
    return place, message, None


_MISTAKES = (
    ("", "it ends too early", "close every quote and bracket"),
    ("'", "a single quote", "write double quotes, as JSON has no others"),
    *(
        (quote, "a typographic quote", 'write straight ones: "')
        for quote in "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
    ),
    *(
        (word, "a word of Python", "write true, false or null")
        for word in ("True", "False", "None")
    ),
    ("\ufeff", "a byte order mark inside the file", "remove it: files were joined"),
    ("\0", "a zero byte", "save the file as UTF-8; this looks like UTF-16"),
)
"""How text begins where JSON goes wrong, what is wrong, what to do."""

_COMPLAINTS = (
    (
        "Unterminated string",
        "a text without its closing quote",
        'close it with "; write a line break in it as \\n',
    ),
    ("Expecting property name", "a name without double quotes", 'write "name": value'),
    ("Expecting ':' delimiter", "a name without a colon and a value", 'write "name": value'),
    ("Expecting value", "no value", "put a text in double quotes; write true, false or a number"),
    ("Invalid control character", "a tab or line break inside a text", "write \\t or \\n"),
    ("Invalid \\", "a backslash", "write / in paths, and \\\\ for a backslash in a text"),
    (
        "Expecting ',' delimiter",
        "a comma is missing, or a quote is inside a text",
        'write such a quote as \\"',
    ),
)
"""How the message of `json` begins, what is mostly wrong, what to do."""
