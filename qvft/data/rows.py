"""Rows: one image with one of its texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from qvft.data.prompt import Kind
from qvft.data.sample import Question, Sample
from qvft.errors import DataError

FILLER = -1
"""Number of a padding row, which has no loss and is not counted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One text of one image.

    Attributes:
        id: unique within a split.
        question: the question asked, None for captions.
        target: the training target.
        references: all accepted texts, unchanged.
        meta: metadata for breakdowns.
        view: augmented view; 0 is the unaugmented image, the only one used in evaluation.
        rejected: the worse text of a pair, whose chosen text is the target; None for other rows.
        candidates: answers to rank by likelihood.
    """

    id: str
    sample: Sample
    kind: Kind
    question: str | None
    target: str
    references: tuple[str, ...]
    meta: dict[str, str]
    view: int = 0
    rejected: str | None = None
    candidates: tuple[str, ...] = ()

    @property
    def prompt(self) -> str | None:
        """The prompt of its source, for texts of its kind; None: that of the prompt template."""
        origin = self.sample.origin
        return origin.caption if self.kind == "caption" else origin.question

    @property
    def asked(self) -> tuple[Kind, str | None, str | None]:
        """What the prompt template makes its prompt of: kind, question and `prompt`."""
        return self.kind, self.question, self.prompt

    @property
    def sampled(self) -> bool:
        """Whether its target is drawn anew from its references in each epoch."""
        is_answer = self.kind == "question" and self.rejected is None
        return is_answer and self.sample.origin.answers == "sampled"


def training_rows(samples: Iterable[Sample], *, texts: str = "all") -> list[Row]:
    """One row per caption and one per question (with the answer that its source chooses)."""
    rows: list[Row] = []
    for sample in samples:
        meta = _meta(sample)
        if texts != "questions":
            for index, caption in enumerate(sample.captions):
                row_id = f"{sample.id}#caption{index}"
                rows.append(Row(row_id, sample, "caption", None, caption, (caption,), meta))
        if texts != "captions":
            rows.extend(_question_rows(sample))
    return rows


def preference_rows(samples: Iterable[Sample], *, texts: str = "all") -> list[Row]:
    """One row per pair: the target is the chosen text, `rejected` the other."""
    rows: list[Row] = []
    for sample in samples:
        for pair in sample.pairs:
            kind: Kind = "caption" if pair.question is None else "question"
            if texts not in ("all", f"{kind}s"):
                continue
            texts_of_pair = pair.question, pair.chosen, (pair.chosen,)
            meta = {**_meta(sample), **pair.meta}
            rows.append(Row(pair.id, sample, kind, *texts_of_pair, meta, rejected=pair.rejected))
    return rows


def single_texts(rows: Iterable[Row]) -> list[Row]:
    """The rows, each pair as two: one with the chosen text as target, one with the rejected."""
    found: list[Row] = []
    for row in rows:
        found.append(row if row.rejected is None else replace(row, rejected=None))
        if row.rejected is not None:
            found.append(replace(found[-1], target=row.rejected, references=(row.rejected,)))
    return found


def evaluation_rows(samples: Iterable[Sample], *, texts: str = "all") -> list[Row]:
    """One row per image for its captions (all are references) and one per question.

    A row of captions has the image's id, a question its own. If an image and a question have the
    same id (both 1 to n, say), rows of captions are named `ID#captions`.

    Raises:
        DataError: two rows would have the same id even so.
    """
    listed = list(samples)
    captioned = {one.id for one in listed if one.captions and texts != "questions"}
    asked = {question.id for one in listed for question in one.questions if texts != "captions"}
    suffix = "#captions" if captioned & asked else ""
    rows: list[Row] = []
    for sample in listed:
        meta = _meta(sample)
        if texts != "questions" and sample.captions:
            name, references = sample.id + suffix, sample.captions
            rows.append(Row(name, sample, "caption", None, references[0], references, meta))
        if texts != "captions":
            rows.extend(_question_rows(sample))
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise DataError(
                f"two texts have the id {row.id}",
                where=row.sample.image.name,
                expected="a different id for each question, and for captions `ID#captions`",
                do="rename one of them",
            )
        seen.add(row.id)
    return rows


def choose_rows(rows: Sequence[Row], count: int, *, spread: bool = False) -> list[Row]:
    """Selects up to `count` rows, captions and questions in turn.

    Args:
        spread: evenly spaced over the rows; otherwise the first rows, new images first.
    """
    queues: dict[str, list[Row]] = {}
    first_rows: dict[str, Row] = {}
    repeated = [row for row in rows if first_rows.setdefault(row.sample.id, row) is not row]
    for row in rows if spread else (*first_rows.values(), *repeated):
        queues.setdefault(row.kind, []).append(row)
    if spread:
        for kind, queue in queues.items():
            others = min(len(rows) - len(queue), count // 2)
            share = min(count - others, len(queue))
            queues[kind] = [queue[place * len(queue) // share] for place in range(share)]
    chosen: list[Row] = []
    while any(queues.values()) and len(chosen) < count:
        chosen += [queue.pop(0) for queue in queues.values() if queue]
    return chosen[:count]


def target_of(answers: Sequence[str]) -> str:
    """The most frequent answer, the first among equals: the training target."""
    return max(answers, key=answers.count)


def _question_rows(sample: Sample) -> Iterable[Row]:
    for asked in sample.questions:
        is_first = sample.origin.answers == "first"
        target = asked.answers[0] if is_first else target_of(asked.answers)
        texts = asked.text, target, asked.answers
        meta = {**_meta(sample), **_meta(asked)}
        yield Row(asked.id, sample, "question", *texts, meta, candidates=asked.candidates)


def _meta(one: Sample | Question) -> dict[str, str]:
    return {key: str(value) for key, value in one.meta.items()}
