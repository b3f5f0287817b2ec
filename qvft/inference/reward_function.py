"""`RewardFunction`: scores of texts that the model wrote, for training, pairs and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qvft.data.rows import Row
from qvft.inference.sample import Sampled

Further = Mapping[str, Any]
"""What trl passes to a reward function beside the texts: `trainer_state`, `log_metric`, ..."""


@dataclass(frozen=True)
class RewardFunction:
    """A reward of sampled texts, and the same metric of held-out greedy texts.

    Attributes:
        name: as in the recipe.
        rewards: reward of each text; None where it says nothing about a text.
        held_out: the metric of one greedy text per row, as evaluation computes it; it returns None
            where it says nothing about any. None: the mean of `rewards`.
    """

    name: str
    rewards: Callable[[Sequence[Sampled], Further], Sequence[float | None]]
    held_out: Callable[[Sequence[Sampled]], float | None] | None


RewardFactory = Callable[[Sequence[str], Sequence[Row], bool], Mapping[str, RewardFunction]]
"""Builds reward functions from names, the training rows with all references, and whether the stop
token is a word of n-grams: `evaluation.rewards.reward_functions`."""

UNTRAINED: Further = {
    "trainer_state": None,
    "log_extra": lambda column, values: None,
    "log_metric": lambda name, value: None,
}
"""What a function gets beside the texts where nothing is trained."""
