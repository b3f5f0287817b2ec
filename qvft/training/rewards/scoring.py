"""Scores sampled texts with the recipe's reward functions, and refuses what is no reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qvft.errors import RecipeError
from qvft.inference.reward_function import UNTRAINED, Further, RewardFunction
from qvft.inference.sample import Sampled

WHERE = "reward.funcs"


def rewards_of(
    function: RewardFunction, texts: Sequence[Sampled], further: Further
) -> list[float | None]:
    """The reward of each text; None where the function says nothing.

    Raises:
        RecipeError: the function raises, or returns another number of rewards, or one that is no
            finite number.
    """
    where = f"{WHERE}.{function.name}"
    expected = f"one number, or None where it says nothing, for each of {len(texts)} texts"
    try:
        found = list(function.rewards(texts, further))
    except (Exception, SystemExit) as error:
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


def weighted(
    by_function: Mapping[str, Sequence[float | None]], weights: Mapping[str, float], count: int
) -> Tensor:
    """(count,) float64 weighted sum of the rewards of each text; NaN if no function scores it."""
    total = torch.zeros(count, dtype=torch.float64)
    scored = torch.zeros(count, dtype=torch.bool)
    for name, weight in weights.items():
        for place, value in enumerate(by_function[name]):
            if value is not None:
                total[place] += weight * value
                scored[place] = True
    return total.masked_fill(~scored, torch.nan)
