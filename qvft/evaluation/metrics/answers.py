"""Exact match of normalised answers, and whether an answer is yes or no."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from qvft.evaluation.metrics.unicode_letters import RUN, composed

NORMALISATION = (
    "composed (Unicode NFC), lower-cased, blanks collapsed to one, outer blanks and one trailing "
    "full stop of any script removed"
)
EXACT_MATCH = (
    "exact_match/v2: share of items whose prediction equals one of the references, "
    f"both {NORMALISATION}."
)

YesNo = Literal["yes", "no", "unparseable"]
Found = Literal["yes", "no", "both", "neither"]

_TOKEN = re.compile(RUN)
_WORD = re.compile(rf"{RUN}(?:['\u2019-]{RUN})*")
# Latin, CJK (three widths), Devanagari and Bengali, Urdu, Armenian, Ethiopic, Khmer, Burmese.
_FULL_STOPS = (".", "。", "．", "｡", "।", "۔", "։", "።", "។", "။")
# What may follow "no" as an answer; any other word makes it a determiner ("no fracture").
_AFTER_NO = frozenset({"it", "there", "this", "that", "these", "those", "they", "he", "she", "not"})


def normalise_answer(text: str) -> str:
    """The text in NFC and lower case, with whitespace collapsed, without a final full stop."""
    plain = " ".join(composed(text).lower().split())
    return plain[:-1].rstrip() if plain.endswith(_FULL_STOPS) else plain


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction equals any reference after `normalise_answer`, else 0."""
    given = normalise_answer(prediction)
    return float(any(given == normalise_answer(reference) for reference in references))


def answer_tokens(text: str) -> list[str]:
    """Words (with combining marks) and numbers of the lower-cased NFC text.

    Punctuation is dropped.
    """
    return _TOKEN.findall(composed(text).lower())


def parse_yes_no(text: str) -> YesNo:
    """Parses a free answer to a yes/no question.

    `yes` or `no` must be the first word, and the other must not occur. "No" counts only if it ends
    the answer, stands before punctuation, or before a pronoun, `there` or `not`: "no fracture" is
    a finding, not a reply, for the question may have been "is it normal?". Everything else is
    unparseable, never guessed.
    """
    lowered = composed(text).lower()
    words = list(_WORD.finditer(lowered))
    if not words or words[0].group() not in ("yes", "no"):
        return "unparseable"
    spoken = words[0].group()
    rest = [word.group() for word in words[1:]]
    if ("no" if spoken == "yes" else "yes") in rest:
        return "unparseable"
    if spoken == "no" and rest:
        between = lowered[words[0].end() : words[1].start()]
        if not between.strip() and rest[0] not in _AFTER_NO:
            return "unparseable"
    return "yes" if spoken == "yes" else "no"


def find_yes_no(text: str) -> Found:
    """Which of `yes` and `no` occur in a text as whole words.

    Apostrophes and hyphens are part of a word: `none`, `nodule`, `yesterday's` and `no-one` contain
    neither.
    """
    words = set(_WORD.findall(composed(text).lower()))
    found = [word for word in ("yes", "no") if word in words]
    if len(found) == 2:
        return "both"
    return "neither" if not found else "yes" if found == ["yes"] else "no"


def is_yes_no(references: Iterable[str]) -> bool:
    """Whether every reference, normalised, is exactly `yes` or `no`; False without references."""
    found = {normalise_answer(reference) for reference in references}
    return bool(found) and found <= {"yes", "no"}
