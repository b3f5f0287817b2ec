"""Common JSON mistakes and the hints that errors give."""

from __future__ import annotations

import json
from pathlib import Path

from qvft.errors import DataError


def not_json(error: json.JSONDecodeError, path: Path, *, line: int | None = None) -> DataError:
    """The error for text that is not JSON: the place, what is wrong there and what to do.

    Args:
        error: what `json` says; its place is a line of its own where `line` is given.
        path: the file.
        line: the line's number in a JSONL file, None for a file that is one JSON value.
    """
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
