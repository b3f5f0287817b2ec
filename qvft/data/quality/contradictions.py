"""Repeated questions about one image, and whether their answers contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qvft.data.quality.texts import normal
from qvft.data.sample import Question, Sample


@dataclass(frozen=True)
class Repeats:
    """Repetitions by id, without texts, since a question may be patient data.

    Attributes:
        contradictions: groups of question ids: one image, one question, no answer in common.
        repeated_questions: groups of question ids: one image, one question, answers in common.
        repeated_captions: row ids of repeated captions of an image.
    """

    contradictions: tuple[tuple[str, ...], ...]
    repeated_questions: tuple[tuple[str, ...], ...]
    repeated_captions: tuple[str, ...]


def repeats(
    samples: Iterable[Sample], content: Callable[[Sample], str], *, texts: str = "all"
) -> Repeats:
    """Repeated texts of an image.

    Texts are compared after `texts.normal`. Several human answers of one question (VQA v2 has ten)
    are not a contradiction; two questions contradict each other if they have no answer in common.

    Args:
        samples: a split, or two.
        content: equal for samples with the same image.
        texts: `all`, `captions` or `questions`, as the recipe's `data.*.texts`.
    """
    asked: dict[tuple[str, str], list[Question]] = {}
    said: set[tuple[str, str]] = set()
    repeated_captions: list[str] = []
    for sample in samples:
        key = content(sample)
        for index, caption in enumerate(sample.captions if texts != "questions" else ()):
            if (key, normal(caption)) in said:
                repeated_captions.append(f"{sample.id}#caption{index}")
            said.add((key, normal(caption)))
        for question in sample.questions if texts != "captions" else ():
            asked.setdefault((key, normal(question.text)), []).append(question)
    several = [group for group in asked.values() if len(group) > 1]
    opposed = [group for group in several if _contradict(group)]
    agreed = [group for group in several if not _contradict(group)]
    return Repeats(_ids(opposed), _ids(agreed), tuple(repeated_captions))


def asked_before(
    samples: Iterable[Sample], others: Iterable[Sample], content: Callable[[Sample], str]
) -> tuple[tuple[str, str], ...]:
    """Ids of questions that `others` also ask about the same image, with the other's id."""
    known: dict[tuple[str, str], str] = {}
    for other in others:
        key = content(other)
        for question in other.questions:
            known.setdefault((key, normal(question.text)), question.id)
    found = []
    for sample in samples:
        key = content(sample)
        for question in sample.questions:
            partner = known.get((key, normal(question.text)))
            if partner is not None:
                found.append((question.id, partner))
    return tuple(found)


def _ids(groups: Iterable[list[Question]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(question.id for question in group) for group in groups)


def _contradict(group: list[Question]) -> bool:
    answers = [{normal(answer) for answer in question.answers} for question in group]
    return any(
        not (first & second)
        for index, first in enumerate(answers)
        for second in answers[index + 1 :]
    )
