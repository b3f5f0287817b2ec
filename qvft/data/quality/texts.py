"""Every text of a split once, with where it stands, so that each check walks the same list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from qvft.data.sample import Sample

TextKind = Literal["caption", "question", "answer"]
KINDS: tuple[TextKind, ...] = ("caption", "question", "answer")


@dataclass(frozen=True, slots=True)
class Text:
    """A text that training sees: `row_id` is its row's, as in `rows.training_rows`."""

    kind: TextKind
    row_id: str
    text: str


def texts_of(samples: Iterable[Sample], *, texts: str = "all") -> Iterator[Text]:
    """Captions, questions, and of each question the answer that is supervised.

    Args:
        samples: a split.
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


def target_of(answers: Iterable[str]) -> str:
    """The most frequent answer, the first among equals: the one that training supervises."""
    return Counter(answers).most_common(1)[0][0]


def normal(text: str) -> str:
    """A text without what does not change its meaning: case, white space, punctuation at its end.

    A text of punctuation alone stays as it is.
    """
    folded = " ".join(text.casefold().split())
    return folded.rstrip(" .,;:!?") or folded
