"""Questions that are asked twice about one image, and whether their answers agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qvft.data.quality.texts import normal
from qvft.data.sample import Question, Sample


@dataclass(frozen=True)
class Repeats:
    """Repetitions by id; texts are left out, for a question may be patient data.

    Attributes:
        contradictions: groups of question ids: one image, one question, no answer in common.
        repeated_questions: questions asked before about the same image with an answer in common.
        repeated_captions: captions that their own image has already.
    """

    contradictions: tuple[tuple[str, ...], ...]
    repeated_questions: int
    repeated_captions: int


def repeats(
    samples: Iterable[Sample], content: Callable[[Sample], str], *, texts: str = "all"
) -> Repeats:
    """What is said twice about an image.

    Texts are compared without case, white space and punctuation at their end. A question's several
    human answers (VQA v2 has ten) are no contradiction; two questions contradict each other where
    not one answer is common to both.

    Args:
        samples: a split, or two.
        content: equal for samples that show the same image.
        texts: `all`, `captions` or `questions`, as the recipe's `data.*.texts`.
    """
    asked: dict[tuple[str, str], list[Question]] = {}
    said: set[tuple[str, str]] = set()
    repeated_captions = 0
    for sample in samples:
        key = content(sample)
        for caption in sample.captions if texts != "questions" else ():
            repeated_captions += (key, normal(caption)) in said
            said.add((key, normal(caption)))
        for question in sample.questions if texts != "captions" else ():
            asked.setdefault((key, normal(question.text)), []).append(question)
    several = [group for group in asked.values() if len(group) > 1]
    opposed = [group for group in several if _contradict(group)]
    return Repeats(
        tuple(tuple(question.id for question in group) for group in opposed),
        sum(len(group) - 1 for group in several if not _contradict(group)),
        repeated_captions,
    )


def asked_before(
    samples: Iterable[Sample], others: Iterable[Sample], content: Callable[[Sample], str]
) -> tuple[str, ...]:
    """Ids of questions that `others` ask too, of the same image; compared as in `repeats`."""
    known = {
        (content(other), normal(question.text)) for other in others for question in other.questions
    }
    return tuple(
        question.id
        for sample in samples
        for question in sample.questions
        if (content(sample), normal(question.text)) in known
    )


def _contradict(group: list[Question]) -> bool:
    answers = [{normal(answer) for answer in question.answers} for question in group]
    return any(
        not (first & second)
        for index, first in enumerate(answers)
        for second in answers[index + 1 :]
    )
