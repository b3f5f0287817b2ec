"""All texts of a split with their positions, for the text checks."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from qvft.data.rows import Row, target_of
from qvft.data.sample import Sample

TextKind = Literal["caption", "question", "answer"]
_STRAIGHT = str.maketrans({**dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')})
_MEANT = "%‰#&@*/\\†‡§"
KINDS: tuple[TextKind, ...] = ("caption", "question", "answer")


@dataclass(frozen=True, slots=True)
class Text:
    """A training text; `row_id` is its row's, as in `rows.training_rows`.

    `is_rejected` is for the worse text of a pair, a caption or an answer.
    """

    kind: TextKind
    row_id: str
    text: str
    is_rejected: bool = False


def texts_of(samples: Iterable[Sample], *, texts: str = "all") -> Iterator[Text]:
    """Captions, questions, and the supervised answer of each question.

    Args:
        texts: `all`, `captions` or `questions`, as the recipe's `data.*.texts`.
    """
    for sample in samples:
        if texts != "questions":
            for index, caption in enumerate(sample.captions):
                yield Text("caption", f"{sample.id}#caption{index}", caption)
        if texts != "captions":
            for question in sample.questions:
                yield Text("question", question.id, question.text)
                yield Text("answer", question.id, target_of(question.answers))


def texts_of_pairs(rows: Iterable[Row]) -> Iterator[Text]:
    """Question, chosen and rejected text of each row of `rows.preference_rows`."""
    for row in rows:
        kind: TextKind = "caption" if row.question is None else "answer"
        if row.question is not None:
            yield Text("question", row.id, row.question)
        yield Text(kind, row.id, row.target)
        if row.rejected is not None:
            yield Text(kind, row.id, row.rejected, is_rejected=True)


def normal(text: str) -> str:
    """A text normalised for comparison.

    Removes differences of case, whitespace, width and ligatures (Unicode NFKC), curly and straight
    quotes, and punctuation around the text: `(left)` is `left`. Meaningful signs stay: a dash
    (`-5`), `%` and the like, a point before a number. A text of punctuation only is unchanged.
    """
    plain = text.casefold()
    if not text.isascii():  # else all of this changes nothing
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        plain = plain.translate(_STRAIGHT)
    folded = " ".join(plain.split())
    start, end = 0, len(folded)
    while end and _is_outside(folded[end - 1]):
        end -= 1
    while start < end and _is_outside(folded[start]) and not _opens_number(folded, start):
        start += 1
    return folded[start:end] or folded


def _is_outside(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "PZ" and category != "Pd" and character not in _MEANT


def _opens_number(text: str, place: int) -> bool:
    return text[place] in ".," and text[place + 1 : place + 2].isdigit()
