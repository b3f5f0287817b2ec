"""Distributions of answers and of text lengths in a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qvft.data.quality.texts import KINDS, Text, normal

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
COMMON = 10
LEAST_SHOWN = 5


@dataclass(frozen=True)
class Common:
    """A frequent answer, and its share of all (0 to 1)."""

    answer: str
    count: int
    share: float


@dataclass(frozen=True)
class Answers:
    """The supervised answers of a split, compared as `texts.normal` says.

    Attributes:
        count: number of questions.
        distinct: number of different answers.
        yes_no_share: share of answers that are `yes` or `no`.
        common: the most frequent answers; for privacy only those of LEAST_SHOWN questions or more.
        once: number of answers of a single question.
        unseen: questions whose answer is not in the training data, None for training data itself.
    """

    count: int
    distinct: int
    yes_no_share: float
    common: tuple[Common, ...]
    once: int
    unseen: int | None = None


@dataclass(frozen=True)
class Lengths:
    """Lengths of the texts of one kind in words and in decoder tokens, at the quantiles SHARES."""

    count: int
    words: tuple[int, ...]
    tokens: tuple[int, ...]


def answers(texts: Iterable[Text], *, known: Collection[str] | None = None) -> Answers | None:
    """Distribution of a split's answers, None without questions.

    Args:
        known: the normalised answers of the training data.
    """
    given = Counter(normal(one.text) for one in texts if one.kind == "answer")
    count = given.total()
    if not count:
        return None
    common = tuple(
        Common(answer, times, times / count)
        for answer, times in given.most_common(COMMON)
        if times >= LEAST_SHOWN
    )
    unseen = None
    if known is not None:
        unseen = sum(times for answer, times in given.items() if answer not in known)
    return Answers(
        count=count,
        distinct=len(given),
        yes_no_share=(given["yes"] + given["no"]) / count,
        common=common,
        once=sum(times == 1 for times in given.values()),
        unseen=unseen,
    )


def lengths(texts: Sequence[Text], tokens: Mapping[str, int]) -> dict[str, Lengths]:
    """Lengths by kind of text; `tokens` is `spelling.token_counts`."""
    found: dict[str, Lengths] = {}
    for kind in KINDS:
        own = [one.text for one in texts if one.kind == kind]
        if own:
            words = quantiles([len(text.split()) for text in own])
            found[kind] = Lengths(len(own), words, quantiles([tokens[text] for text in own]))
    return found


def quantiles(values: Sequence[int]) -> tuple[int, ...]:
    """Values at SHARES of the sorted list, without interpolation."""
    ordered = sorted(values)
    return tuple(ordered[round(share * (len(ordered) - 1))] for share in SHARES)
