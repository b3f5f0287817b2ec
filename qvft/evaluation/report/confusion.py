"""Confusion tables of the report: which answer was given for which, in closed sets of answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from qvft.evaluation.metrics.answers import is_yes_no, normalise_answer, parse_yes_no
from qvft.evaluation.rows import PredictionRow

MOST_ANSWERS = 12
LEAST_ROWS = 20
OTHER = "another text"


@dataclass(frozen=True)
class Confusion:
    """A table of N reference answers and the predictions for them.

    Attributes:
        title: the question, or that its questions are answered by yes or no.
        answers: (N,) reference answers, the most frequent first.
        columns: the answers that were predicted, in the same order, then `OTHER` if it was.
        counts: (N, columns) numbers of items.
    """

    title: str
    answers: list[str]
    columns: list[str]
    counts: list[list[int]]


def confusions(rows: Sequence[PredictionRow]) -> list[Confusion]:
    """Tables of yes/no questions, and of each question with a closed set of answers: asked at
    least LEAST_ROWS times, 2 to MOST_ANSWERS different answers, one per item.
    """
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    open_ended: set[str] = set()
    for row in rows:
        if row.question is None:
            continue
        if is_yes_no(row.references):
            said = parse_yes_no(row.prediction)
            group, prediction = "yes/no questions", said if said in ("yes", "no") else OTHER
        else:
            group, prediction = row.question, normalise_answer(row.prediction)
        references = {normalise_answer(text) for text in row.references}
        if len(references) != 1:
            open_ended.add(group)
            continue
        groups[group].append((references.pop(), prediction))
    tables = [_table(title, pairs) for title, pairs in groups.items() if title not in open_ended]
    return [table for table in tables if table is not None]


def _table(title: str, pairs: Sequence[tuple[str, str]]) -> Confusion | None:
    frequent = Counter(reference for reference, _ in pairs).most_common()
    answers = [answer for answer, _ in frequent]
    if len(pairs) < LEAST_ROWS or not 2 <= len(answers) <= MOST_ANSWERS:
        return None
    found = Counter((one, other if other in answers else OTHER) for one, other in pairs)
    columns = [*answers, OTHER] if any(other == OTHER for _, other in found) else answers
    return Confusion(
        title, answers, columns, [[found[one, other] for other in columns] for one in answers]
    )
