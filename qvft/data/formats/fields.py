"""Reads and validates single fields of dataset records, with uniform error messages.

Messages name fields, types and ids, never what a text says: data may be about patients.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qvft.errors import DataError
from qvft.json_files import read_json, read_jsonl

_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_HINTS = {  # for a value that is not a text
    type(None): "fill it in or remove it",
    dict: "write its text alone",
    list: "write one text, not a list of them",
    bool: "put it in quotes",
    int: "put it in quotes",
    float: "put it in quotes",
}
_DISTINCT_KEYS = frozenset(
    ("answer", "answer_type", "caption", "content_type", "id", "image", "image_id", "image_organ")
    + ("phrase_type", "qid", "q_lang", "question", "question_id", "question_type")
)
"""Keys with the same meaning in every format; none is a misspelling of another."""


class Record(dict[str, Any]):
    """A JSON object of a data file; `where` is its position, for messages.

    Each method reads a required field and raises DataError if it is missing or invalid.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def text(self, key: str) -> str:
        return text(field(self, key, where=self.where), key, where=self.where)

    def answer(self, key: str) -> str:
        return answer(field(self, key, where=self.where), key, where=self.where)

    def identifier(self, key: str) -> str:
        return identifier(field(self, key, where=self.where), key, where=self.where)

    def records(self, key: str, *, example: str) -> Iterator[tuple[str, Record]]:
        value = field(self, key, where=self.where)
        return records(value, where=f"{self.where}, {key}", example=example)


def kind(value: Any) -> str:
    """JSON type of a value, in words: `a list`, `null`."""
    if _is_nan(value):
        return f"{json.dumps(value)}, which is not a JSON value"
    return _JSON_NAMES.get(type(value), f"a {type(value).__name__}")


def _is_nan(value: Any) -> bool:
    """Whether a value is NaN, as in an empty cell of a table of pandas, or infinite."""
    return isinstance(value, float) and not math.isfinite(value)


def _hint(value: Any) -> str | None:
    return "remove a key without a value" if _is_nan(value) else _HINTS.get(type(value))


def wrong_kind(
    value: Any, key: str, *, where: str, expected: str, do: str | None = None
) -> DataError:
    """Error for a value of another type than expected."""
    given = f"`{key}` is {kind(value)}"
    return DataError(given, where=where, expected=expected, do=do)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """`did you mean X?` for the most similar of `names`, None if none is similar."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else None


def field(row: Mapping[str, Any], key: str, *, where: str) -> Any:
    """Value of a required key. Raises DataError if it is missing."""
    if key not in row:
        others = [name for name in row if name not in _DISTINCT_KEYS]
        close = difflib.get_close_matches(key, others, n=1, cutoff=0.7)
        do = f"rename `{close[0]}` to it" if close else "add it"
        raise DataError(f"`{key}` is missing", where=where, do=do)
    return row[key]


def string(value: Any, key: str, *, where: str) -> str:
    """A string, unchanged. Raises DataError for another type, or half of a surrogate pair."""
    if not isinstance(value, str):
        raise wrong_kind(value, key, where=where, expected="a string", do=_hint(value))
    valid_unicode(value, key, where=where)
    return value


def text(value: Any, key: str, *, where: str) -> str:
    """A string without outer whitespace. Raises DataError if nothing is left, or as `string`."""
    stripped = string(value, key, where=where).strip()
    if not stripped:
        raise DataError(
            f"`{key}` is empty", where=where, expected="some text", do="fill it in or remove it"
        )
    return stripped


def valid_unicode(value: Any, key: str, *, where: str) -> None:
    """Raises DataError if a JSON value holds half of a surrogate pair, or is nested too deeply."""
    try:
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        written.encode()
    except RecursionError as error:
        raise DataError(f"`{key}` is nested too deeply", where=where) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"`{key}` is not valid Unicode (half of a surrogate pair)",
            where=where,
            expected="complete characters",
            do="export the text again as UTF-8",
        ) from error


def answer(value: Any, key: str, *, where: str) -> str:
    """An answer; numbers and booleans become their JSON text. Raises DataError as `text`."""
    is_number = isinstance(value, int | float) and not _is_nan(value)
    return text(json.dumps(value) if is_number else value, key, where=where)


def answers(value: Any, key: str, *, where: str) -> tuple[str, ...]:
    """All answers of a list, with repetitions. Raises DataError if it is no list, or empty."""
    if not isinstance(value, list | tuple):
        do = 'write ["..."], also around a single answer'
        raise wrong_kind(value, key, where=where, expected="a list of strings", do=do)
    if not value:
        raise DataError(
            f"`{key}` is empty",
            where=where,
            expected="at least one answer",
            do="add one, or remove the question",
        )
    return tuple(answer(item, f"{key}[{n}]", where=where) for n, item in enumerate(value))


def identifier(value: Any, key: str, *, where: str) -> str:
    """An id as text: a string or an integer. Raises DataError for another type, or if empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        decimal = isinstance(value, float) and not _is_nan(value)
        raise DataError(
            f"`{key}` is {'a decimal number' if decimal else kind(value)}",
            where=where,
            expected="a string or a whole number",
            do=_hint(value),
        )
    return text(value, key, where=where)


def known_keys(row: Mapping[str, Any], keys: Iterable[str], *, where: str) -> None:
    """Raises DataError for an unknown key; the message names the most similar known key."""
    allowed = tuple(keys)
    for key in row:
        if key not in allowed:
            raise DataError(
                f"unknown key `{key}`",
                where=where,
                expected="one of " + ", ".join(allowed),
                do=nearest(key, allowed),
            )


def records(
    content: Any, *, where: str, example: str | None = None
) -> Iterator[tuple[str, Record]]:
    """Pairs (position, object) of a JSON list of objects; messages show the example."""
    if not isinstance(content, list):
        do = f"write [{example}, ...]" if example else "write [{...}, {...}]"
        raise DataError(kind(content), where=where, expected="a list of objects", do=do)
    for number, row in enumerate(content):
        place = f"{where}, record {number}"
        if not isinstance(row, dict):
            do = f"write {example}" if example else "write {...} with the keys of the format"
            raise DataError(kind(row), where=place, expected="an object", do=do)
        yield place, Record(row, place)


def records_of_file(file: Path) -> Iterator[Record]:
    """The objects of a file: of a JSON list, or the lines of JSONL."""
    if file.suffix == ".jsonl":
        return (Record(row, f"{file}:{number}") for number, row in read_jsonl(file))
    return (row for _, row in records(read_json(file), where=str(file)))


def section(content: Any, key: str, *, path: Path) -> Iterator[tuple[str, Record]]:
    """As `records`, of the list under `key` of a JSON file's object."""
    return records(listed(content, key, path=path), where=f"{path}, {key}")


def listed(content: Any, key: str, *, path: Path) -> Any:
    """What stands under `key` of a JSON file's object. Raises DataError if it is no object."""
    if not isinstance(content, dict):
        do = f'write {{"{key}": [{{...}}, ...]}}'
        expected = f"an object with `{key}`"
        raise DataError(kind(content), where=str(path), expected=expected, do=do)
    return field(content, key, where=str(path))
