"""Statistics of text cleaning on a split (`data.text: blip2`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qvft.data.blip_text import TextForm, clean_caption, clean_question, cleaned
from qvft.data.rows import Row, training_rows
from qvft.data.sample import Sample
from qvft.data.stream import Part, Stream
from qvft.errors import DataError

LISTED = 3
_ALL_WORDS = sys.maxsize


@dataclass(frozen=True)
class Cleaned:
    """Number of rows changed by cleaning, and ids of those truncated to `MAX_WORDS`."""

    rows: int
    shortened_ids: tuple[str, ...]


def cleaned_rows(rows: Iterable[Row], form: TextForm) -> Cleaned:
    """Counts changed rows; differences of whitespace only do not count."""
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
    """Raises DataError for captions and questions that are empty after cleaning."""
    if form == "as_written":
        return
    empty = [
        row.id or row.sample.id for row in rows if not cleaned(row.kind, _text(row), form).strip()
    ]
    if empty:
        first = ", ".join(empty[:LISTED]) + (", ..." if len(empty) > LISTED else "")
        raise DataError(
            f"cleaning leaves nothing of {len(empty):,} text{'s' * (len(empty) > 1)}: {first}",
            where=where,
            expected='texts of more than .!"()*#:;~ and blanks',
            do="replace them, or data.text: as_written",
        )


@dataclass(frozen=True)
class TextsLeft:
    """A stream in which a sample with an empty text after cleaning is a broken record.

    `texts` and `form` are the recipe's `data.train.texts` and `data.text`.
    """

    stream: Stream
    texts: str
    form: TextForm

    @property
    def sha256(self) -> str:
        return self.stream.sha256

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        for found in self.stream.samples(part):
            if not isinstance(found, DataError):
                try:
                    rows = training_rows([found], texts=self.texts)
                    require_text_left(rows, self.form, where=found.id)
                except DataError as error:
                    yield error
                    continue
            yield found


def _text(row: Row) -> str:
    """The text of a row that is cleaned: caption or question, never an answer."""
    return row.target if row.kind == "caption" else row.question or ""
