"""What cleaning does to the texts of a split (`data.text: blip2`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from qvft.data.blip_text import TextForm, clean_caption, clean_question, cleaned
from qvft.data.rows import Row
from qvft.errors import DataError

LISTED = 3
_ALL_WORDS = sys.maxsize


@dataclass(frozen=True)
class Cleaned:
    """Rows whose caption or question is another after cleaning.

    Attributes:
        rows: how many.
        shortened_ids: of those that lose words, since they have more than `MAX_WORDS`.
    """

    rows: int
    shortened_ids: tuple[str, ...]


def cleaned_rows(rows: Iterable[Row], form: TextForm) -> Cleaned:
    """What is changed in the rows; differences of white space alone do not count."""
    changed, shortened = 0, []
    if form == "as_written":
        return Cleaned(0, ())
    for row in rows:
        text = _text(row)
        kept = cleaned(row.kind, text, form)
        changed += kept.split() != text.split()
        clean = clean_caption if row.kind == "caption" else clean_question
        if clean(text, max_words=_ALL_WORDS) != kept:
            shortened.append(row.id)
    return Cleaned(changed, tuple(shortened))


def require_text_left(rows: Iterable[Row], form: TextForm, *, where: str) -> None:
    """Refuses captions and questions of which cleaning leaves nothing.

    Raises:
        DataError: there are some.
    """
    if form == "as_written":
        return
    empty = [row.id for row in rows if not cleaned(row.kind, _text(row), form).strip()]
    if empty:
        first = ", ".join(empty[:LISTED]) + (", ..." if len(empty) > LISTED else "")
        raise DataError(
            f"cleaning leaves nothing of {len(empty):,} texts, first {first}",
            where=where,
            expected='texts of more than .!"()*#:;~ and blanks',
            do="replace them, or data.text: as_written",
        )


def _text(row: Row) -> str:
    """What is cleaned of a row: its caption or its question, never an answer."""
    return row.target if row.kind == "caption" else row.question or ""
