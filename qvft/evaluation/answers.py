"""What counts as the same answer, and when an answer says yes or no: stated here and only here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

NORMALISATION = (
    "lower-cased, blanks collapsed to one, outer blanks and one trailing full stop removed"
)

YesNo = Literal["yes", "no", "unparseable"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_TOKEN = re.compile(r"[^\W_]+")
# What may follow "no" as an answer; any other word makes it a determiner ("no fracture").
_AFTER_NO = frozenset({"it", "there", "this", "that", "these", "those", "they", "he", "she", "not"})


def normalise_answer(text: str) -> str:
    """The text lower-cased, with single inner blanks, no outer ones, no trailing full stop."""
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def answer_tokens(text: str) -> list[str]:
    """Runs of letters and digits of the lower-cased text; punctuation only separates them."""
    return _TOKEN.findall(text.lower())


def parse_yes_no(text: str) -> YesNo:
    """What a free answer says to a yes/no question.

    `yes` or `no` must be the first word, and the other must not occur. "No" counts only if it ends
    the answer, stands before punctuation, or before a pronoun, `there` or `not`: "no fracture" is
    a finding, not a reply, for the question may have been "is it normal?". Everything else is
    unparseable, never guessed.
    """
    lowered = text.lower()
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


def is_yes_no(references: Iterable[str]) -> bool:
    """Whether every reference, normalised, is exactly `yes` or `no`; False of none."""
    found = {normalise_answer(reference) for reference in references}
    return bool(found) and found <= {"yes", "no"}
