"""Reward functions of the tests, with trl's signature."""

from __future__ import annotations

from typing import Any


def remainder(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """A number of the first token that differs between most texts."""
    return [float(ids[0] % 97) / 10 for ids in completion_ids]


def parity(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Whether the first token is even: groups of three are often alike."""
    return [float(ids[0] % 2) for ids in completion_ids]


def one(completions: list[str], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


def prefers_the(completions: list[str], log_metric: Any, **columns: Any) -> list[float]:
    """Whether a text has the word "the"; logs how long the texts are."""
    log_metric("letters", sum(map(len, completions)) / len(completions))
    return [float("the" in text.split()) for text in completions]


def raises(prompts: list[str], **columns: Any) -> list[float]:
    raise KeyError("no such column")


def too_few(completions: list[str], **columns: Any) -> list[float]:
    return [1.0] * (len(completions) - 1)


def not_a_number(completions: list[str], **columns: Any) -> list[float]:
    return [float("nan")] * len(completions)


def texts(completions: list[str], **columns: Any) -> list[Any]:
    return list(completions)


def numerals(completions: list[str], **columns: Any) -> list[Any]:
    return [str(number) for number in range(len(completions))]


def leaves(**columns: Any) -> list[float]:
    raise SystemExit(0)


def of_captions(kind: list[str], **columns: Any) -> list[float | None]:
    return [1.0 if one == "caption" else None for one in kind]


calls = 0


def falls(completions: list[str], **columns: Any) -> list[float]:
    """Less at every call."""
    global calls
    calls += 1
    return [-float(calls)] * len(completions)


class Recorded:
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def __call__(self, **columns: Any) -> list[float]:
        self.given = columns
        return [0.0] * len(columns["completions"])


recorded = Recorded()
