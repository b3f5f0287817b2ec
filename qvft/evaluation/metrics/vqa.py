"""VQA accuracy, as the official evaluator computes it under its rules of 2017 or of 2021.

The rules differ in what is normalised. 2017 always normalises the prediction fully and the human
answers by punctuation only, and these only if they are not all equal. 2021 normalises both fully
if the human answers are not all equal, and compares raw strings otherwise. Papers of the BLIP
family report 2017. All texts are composed (Unicode NFC) first, which the evaluator does not do.

Source: Antol et al. 2015, section 3; github.com/GT-Vision-Lab/VQA, PythonEvaluationTools,
commits a4f1afd5 (2017) and a013f004 (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from qvft.evaluation.metrics.vqa_text import spell_and_drop_articles, strip_punctuation
from qvft.evaluation.unicode_letters import composed

Rules = Literal["2017", "2021"]

ENOUGH_MATCHES = 3


def vqa_accuracy(prediction: str, answers: Sequence[str], *, rules: Rules = "2017") -> float:
    """Accuracy of one prediction, from 0 to 1.

    Each human answer is left out in turn; the others agree with the prediction fully once three
    of them match. With ten answers and n matches that is 0, 0.3, 0.6, 0.9 and 1 from n = 4.

    Args:
        answers: the human answers, ten in VQA v2; at least two.

    Raises:
        ValueError: fewer than two answers, one text in place of them, or rules of another year.
    """
    if isinstance(answers, str):
        raise ValueError("one text; VQA accuracy needs a list of answers")
    if len(answers) < 2:
        raise ValueError(f"{len(answers)} answers; VQA accuracy needs at least two, VQA v2 has ten")
    try:
        normalise = _NORMALISERS[rules]
    except KeyError as error:
        raise ValueError(f"rules {rules!r}; expected one of {', '.join(_NORMALISERS)}") from error
    given, humans = normalise(composed(prediction), [composed(answer) for answer in answers])
    matches = sum(answer == given for answer in humans)
    scores = [
        min(1.0, (matches - (answer == given)) / ENOUGH_MATCHES) for answer in humans
    ]  # fmt: skip
    return sum(scores) / len(scores)


def _rules_2017(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    humans = list(answers)
    if len(set(humans)) > 1:
        humans = [strip_punctuation(answer) for answer in humans]
    return spell_and_drop_articles(strip_punctuation(_one_line(prediction))), humans


def _rules_2021(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    given, humans = _one_line(prediction), [_one_line(answer) for answer in answers]
    if len(set(humans)) > 1:
        given = spell_and_drop_articles(strip_punctuation(given))
        humans = [spell_and_drop_articles(strip_punctuation(answer)) for answer in humans]
    return given, humans


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


_NORMALISERS: dict[str, Callable[[str, Sequence[str]], tuple[str, list[str]]]] = {
    "2017": _rules_2017,
    "2021": _rules_2021,
}
