"""Reads files of official layouts, with error messages that name file and row.

Messages name fields, types and ids, never what a text says: data may be about patients.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.errors import DataError
from qvft.json_files import read_json

_NAMED = 5


@dataclass(frozen=True)
class Results:
    """A system's texts, by id.

    Attributes:
        texts: the first row's text of each id, in the file's order.
        repeated: the id of every further row, in the file's order; these rows do not count.
    """

    texts: Mapping[str, str]
    repeated: tuple[str, ...]


def read_results(path: Path, *, key: str, text_key: str) -> Results:
    """The rows of a results file, a list of objects with an id and a text, which may be empty.

    Raises:
        DataError: the file has another layout or no row at all, or a row is broken.
    """
    texts: dict[str, str] = {}
    repeated = []
    for name, text in ids_and_texts(read_json(path), key, text_key, where=str(path)):
        if name in texts:
            repeated.append(name)
        else:
            texts[name] = text
    if not texts:
        raise DataError(
            "no predictions",
            where=str(path),
            expected=f"rows with `{key}` and `{text_key}`",
            do="check that the system wrote its outputs",
        )
    return Results(texts, tuple(repeated))


def ids_and_texts(
    content: Any, key: str, text_key: str, *, where: str
) -> Iterator[tuple[str, str]]:
    """The `identifier` and the `words` of each record of a list; raises as they do."""
    try:  # nearly all files
        values, texts = [row[key] for row in content], [row[text_key] for row in content]
        "".join(texts).encode()
        plain = set(map(type, values)) == {int}
    except (KeyError, TypeError, UnicodeEncodeError):
        plain = False
    if plain:
        return zip(map(str, values), texts, strict=True)
    return (
        (identifier(row, key, where=place), words(row, text_key, where=place))
        for place, row in fields.records(content, where=where)
    )


def identifier(row: Mapping[str, Any], key: str, *, where: str) -> str:
    """A record's id as text: 42, 42.0 and "42" are the same id. Raises DataError for any other."""
    value = row.get(key)
    if type(value) is int:  # nearly all; the rest is told what is wrong
        return str(value)
    value = fields.field(row, key, where=where)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return fields.identifier(value, key, where=where)


def words(row: Mapping[str, Any], key: str, *, where: str) -> str:
    """A record's text as it stands, blanks included; raises DataError for anything else."""
    value = row.get(key)
    if type(value) is str and value.isascii():
        return value
    return fields.string(fields.field(row, key, where=where), key, where=where)


def named(ids: Collection[str]) -> str:
    """The first few of some ids, and how many more there are."""
    first = ", ".join(list(ids)[:_NAMED])
    more = len(ids) - _NAMED
    return f"{first} and {more:,} more" if more > 0 else first
