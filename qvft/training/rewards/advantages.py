"""Advantages of sampled texts from weighted rewards: RLOO, greedy baseline (SCST), GRPO, Dr. GRPO.

Shape letters: P prompts, K samples per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to a group's standard deviation. Source: trl 1.16, `GRPOTrainer`."""


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


def advantages(
    rewards: Tensor, form: str, *, greedy: Tensor | None = None, is_scaled: bool = False
) -> Tensor:
    """Advantages (P, K) of rewards (P, K): each reward minus a baseline.

    A reward that is NaN, of a text that no function scores, is in no baseline and has advantage 0.

    Args:
        form: `rloo`: the mean of the group's other rewards (Ahmadian et al., arXiv 2402.14740;
            "new self-critical", arXiv 2003.09971). `greedy`: the reward of the prompt's greedy text
            (SCST, Rennie et al., arXiv 1612.00563). `grpo`, `dr_grpo`: the group's mean (arXiv
            2402.03300, 2503.20783), which has the sample in it.
        greedy: (P,) with `greedy`.
        is_scaled: divided by the group's standard deviation, as GRPO does.
    """
    known = ~rewards.isnan()
    count = known.sum(dim=1, keepdim=True)
    if form == "greedy":
        assert greedy is not None, "the greedy baseline is a reward"
        found = rewards - greedy[:, None]
    elif form == "rloo":
        found = rewards - (rewards.nansum(dim=1, keepdim=True) - rewards) / (count - 1)
    else:
        found = rewards - rewards.nanmean(dim=1, keepdim=True)
    if is_scaled:
        found = found / (spread(rewards)[:, None] + EPSILON)
    # A single scored text of a group has nothing to be compared with.
    return found.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def spread(rewards: Tensor) -> Tensor:
    """(P,) standard deviation of each group's scored rewards; NaN of fewer than two."""
    count = (~rewards.isnan()).sum(dim=1)
    squares = (rewards - rewards.nanmean(dim=1, keepdim=True)).square().nansum(dim=1)
    return (squares / (count - 1)).sqrt()


def without_spread(rewards: Tensor) -> Tensor:
    """(P,) whether all rewards of a group are equal up to rounding, as trl counts them."""
    found = spread(rewards)
    return torch.isclose(found, torch.zeros_like(found))
