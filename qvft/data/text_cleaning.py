"""Statistics of text cleaning on a split (`data.text: blip2`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from qvft.data.blip_text import TextForm, clean_caption, clean_question, cleaned
from qvft.data.rows import Row, preference_rows, training_rows
from qvft.data.sample import Origin, Sample
from qvft.data.stream import Part, Stream
from qvft.errors import DataError

LISTED = 3
_ALL_WORDS = sys.maxsize


def cleaned_rows(rows: Iterable[Row], form: TextForm) -> tuple[int, tuple[str, ...]]:
    """Number of rows changed by cleaning, and ids of those truncated to `MAX_WORDS`; differences
    of whitespace only do not count.
    """
    changed, shortened = 0, []
    if form == "as_written":
        return 0, ()
    for row in rows:
        texts = _texts(row)
        kept = [cleaned(row.kind, text, form) for text in texts]
        changed += any(one.split() != text.split() for one, text in zip(kept, texts, strict=True))
        clean = clean_caption if row.kind == "caption" else clean_question
        if [clean(text, max_words=_ALL_WORDS) for text in texts] != kept:
            shortened.append(row.id)
    return changed, tuple(shortened)


def require_text_left(rows: Iterable[Row], form: TextForm, *, where: str) -> None:
    """Raises DataError for captions and questions that are empty after cleaning."""
    if form == "as_written":
        return
    empty = [
        row.id or row.sample.id
        for row in rows
        if not all(cleaned(row.kind, text, form).strip() for text in _texts(row))
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

    `texts` and `form` are the recipe's `data.train.texts` and `data.text`; samples get `origin`.
    """

    stream: Stream
    texts: str
    form: TextForm
    origin: Origin = Origin()

    @property
    def sha256(self) -> str:
        return self.stream.sha256

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        for found in self.stream.samples(part):
            if not isinstance(found, DataError):
                try:
                    rows = training_rows([found], texts=self.texts)
                    rows += preference_rows([found], texts=self.texts)
                    require_text_left(rows, self.form, where=found.id)
                except DataError as error:
                    yield error
                    continue
                found = replace(found, origin=self.origin)
            yield found


def _texts(row: Row) -> tuple[str, ...]:
    """The texts of a row that are cleaned: captions or question, never an answer."""
    if row.kind == "question":
        return (row.question or "",)
    return (row.target,) if row.rejected is None else (row.target, row.rejected)
