"""Repeated questions about one image, and whether their answers contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

from qvft.data.quality.texts import normal
from qvft.data.sample import Question, Sample


@dataclass(frozen=True)
class Repeats:
    """Repetitions by id, without texts, since a question may be patient data.

    Attributes:
        contradictions, repeated_questions: groups of question ids: one image, one question, without
            and with an answer in common.
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
    known_captions: set[tuple[str, str]] = set()
    repeated_captions: list[str] = []
    for sample in samples:
        key = content(sample)
        for index, caption in enumerate(sample.captions if texts != "questions" else ()):
            if (key, normal(caption)) in known_captions:
                repeated_captions.append(f"{sample.id}#caption{index}")
            known_captions.add((key, normal(caption)))
        for question in sample.questions if texts != "captions" else ():
            asked.setdefault((key, normal(question.text)), []).append(question)
    contradictions: list[tuple[str, ...]] = []
    repeated_questions: list[tuple[str, ...]] = []
    for group in asked.values():
        if len(group) > 1:
            ids = tuple(question.id for question in group)
            (contradictions if _contradict(group) else repeated_questions).append(ids)
    return Repeats(tuple(contradictions), tuple(repeated_questions), tuple(repeated_captions))


def asked_before(
    samples: Iterable[Sample], others: Iterable[Sample], content: Callable[[Sample], str]
) -> tuple[tuple[str, str], ...]:
    """Ids of questions that `others` also ask about the same image, with the other's id.

    Questions of pairs are among them, under the pair's id.
    """
    known: dict[tuple[str, str], str] = {}
    for other in others:
        key = content(other)
        for id, text in _questions(other):
            known.setdefault((key, normal(text)), id)
    return tuple(
        (id, known[asked])
        for sample in samples
        for id, text in _questions(sample)
        if (asked := (content(sample), normal(text))) in known
    )


def _questions(sample: Sample) -> list[tuple[str, str]]:
    """Id and text of each question, those of pairs too."""
    pairs = [(pair.id, pair.question) for pair in sample.pairs if pair.question is not None]
    return [*((question.id, question.text) for question in sample.questions), *pairs]


def _contradict(group: list[Question]) -> bool:
    answers = [{normal(answer) for answer in question.answers} for question in group]
    return any(not first & second for first, second in combinations(answers, 2))
