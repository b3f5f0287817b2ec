"""`RewardFunction`: scores of texts that the model wrote, for training, pairs and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.inference.sampled import Sampled

FUNCS = "reward.funcs"
"""Recipe key of the reward functions."""
Further = Mapping[str, Any]
"""What trl passes to a reward function beside the texts: `trainer_state`, `log_metric`, ..."""


@dataclass(frozen=True)
class RewardFunction:
    """A reward of sampled texts, and the same metric of held-out greedy texts.

    Attributes:
        where: its recipe key or command-line option, for messages.
        rewards: reward of each text; None where it says nothing about a text.
        held_out: the metric of one greedy text per row, as evaluation computes it; it returns None
            where it says nothing about any. None: the mean of `rewards`.
    """

    where: str
    rewards: Callable[[Sequence[Sampled], Further], Sequence[float | None]]
    held_out: Callable[[Sequence[Sampled]], float | None] | None


RewardFactory = Callable[[Sequence[str], Sequence[Row], bool], Mapping[str, RewardFunction]]
"""Builds reward functions from names, the training rows with all references, and whether the stop
token is a word of n-grams: `evaluation.rewards.reward_functions`."""

TextScores = Callable[[Sequence[Sampled]], Mapping[str, float]]
"""Scores of generated texts by the report's names: `evaluation.scoring.text_scores`."""

UNTRAINED: Further = {
    "trainer_state": None,
    "log_extra": lambda column, values: None,
    "log_metric": lambda name, value: None,
}
"""What a function gets beside the texts where nothing is trained."""


def rewards_of(
    function: RewardFunction, texts: Sequence[Sampled], further: Further
) -> list[float | None]:
    """The reward of each text; None where the function says nothing.

    Raises:
        RecipeError: the function raises, or returns another number of rewards, or one that is no
            finite number.
    """
    where = function.where
    expected = f"one number, or None where it says nothing, for each of {len(texts)} texts"
    try:
        found = list(function.rewards(texts, further))
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise RecipeError(
            f"raised {type(error).__name__}: {error}",
            where=where,
            expected=expected,
            do="see docs/reward.md for what it is given",
        ) from error
    if len(found) != len(texts):
        raise RecipeError(f"returned {len(found)} rewards", where=where, expected=expected)
    values: list[float | None] = []
    for text, value in zip(texts, found, strict=True):
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise RecipeError(
                f"returned {value!r} for row {text.row.id}", where=where, expected=expected
            )
        values.append(number)
    return values


def held_out_score(function: RewardFunction, texts: Sequence[Sampled]) -> float | None:
    """The metric of one greedy text per row; None where the function says nothing about any.

    Raises:
        RecipeError: as `rewards_of`.
    """
    if function.held_out is not None:
        return function.held_out(texts)
    found = [one for one in rewards_of(function, texts, UNTRAINED) if one is not None]
    return sum(found) / len(found) if found else None
