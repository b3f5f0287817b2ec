"""VQA accuracy, as the official evaluator computes it under its rules of 2017 or of 2021.

The rules differ in what is normalised. 2017 always normalises the prediction fully and the human
answers by punctuation only, and these only if they are not all equal. 2021 normalises both fully
if the human answers are not all equal, and compares raw strings otherwise. Papers of the BLIP
family report 2017. All texts are composed (Unicode NFC) first, which the evaluator does not do.

Source: Antol et al. 2015, section 3; github.com/GT-Vision-Lab/VQA, PythonEvaluationTools,
commits a4f1afd5 (2017) and a013f004 (2021).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from qvft.evaluation.metrics.unicode_letters import composed

Rules = Literal["2017", "2021"]

ENOUGH_MATCHES = 3

# Of the evaluator's normalisation, oddities included: published numbers were made with them.
_MARKS = frozenset(';/[]"{}()=+\\_-><@`,?!')
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS_REMOVED = 32
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = frozenset({"a", "an", "the"})

# A word that lacks exactly one of its apostrophes gets it back. The list is the evaluator's: words
# that it leaves alone when written without apostrophe ("im", "hell", "wed") are not on it.
_CONTRACTIONS_SPELT = (
    "'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't "
    "hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've "
    "it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock "
    "oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll "
    "somebody's someone'd someone'd've someone'll someone's something'd something'd've "
    "something'll that's there'd there'd've there're there's they'd they'd've they'll they're "
    "they've wasn't we'd've we've weren't what'll what're what's what've when's where'd "
    "where's where've who'd who'd've who'll who's who've why'll why're why's won't would've "
    "wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've"
)
_CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS_SPELT.split()
    for place, character in enumerate(word)
    if character == "'"
}
# The evaluator's table has this one the wrong way round.
_CONTRACTIONS["somebody'd"] = "somebodyd"


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


def strip_punctuation(text: str) -> str:
    """The first step: marks become nothing or a blank, then most full stops go.

    A mark is deleted everywhere if it stands beside a blank anywhere, or if the text holds a comma
    between digits; otherwise it becomes a blank. A full stop before a digit stays.
    """
    number = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in _MARKS.intersection(text):  # no mark's fate depends on another's
        beside_blank = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_blank or number else " ")
    return _FULL_STOP.sub("", result, count=_MOST_FULL_STOPS_REMOVED)


def spell_and_drop_articles(text: str) -> str:
    """The second step: lower-case, number words to digits, no articles, apostrophes restored."""
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
