"""Reward phases in a report: reward, held-out metric, KL and signs of a worse text by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from qvft.evaluation.report.logged_points import (
    Figures,
    LoggedPoint,
    first_and_last,
    points_of,
    section_of,
)
from qvft.evaluation.report.phases import PhaseFacts

_FIGURES: Figures = {
    "reward": ("reward", "reward of samples"),
    "held_out": ("eval_held_out", "held-out metric, greedy texts of data.eval"),
    "kl": ("kl", "KL divergence from the start, nats per token"),
    "zero_std": ("frac_reward_zero_std", "groups without spread, share"),
    "mean_length": ("completions/mean_length", "tokens per sample"),
    "bad_endings": ("completions/bad_endings", "samples with a bad ending, share"),
    "distinct_2": ("completions/distinct_2", "distinct bigrams of samples, share"),
    "eval_mean_length": ("eval_completions/mean_length", "tokens per greedy text"),
    "eval_bad_endings": ("eval_completions/bad_endings", "greedy texts with a bad ending, share"),
}
"""The names in metrics.jsonl are trl's where trl has them."""
_CHARTS = (
    ("Reward and held-out metric", {"reward": "reward", "held out": "held_out"}),
    ("Bad endings and distinct bigrams", {"bad": "bad_endings", "distinct": "distinct_2"}),
)


class RewardPoint(LoggedPoint):
    """A logged step of a phase that learns from rewards."""

    reward: float | None = Field(None, description="weighted sum of `reward.funcs`, samples' mean")
    held_out: float | None = Field(
        None, description="the metric that chooses the checkpoint, of greedy texts"
    )
    kl: float | None = Field(None, description="KL divergence from the start, nats per token")
    zero_std: float | None = Field(None, description="share of groups whose rewards are all equal")
    mean_length: float | None = Field(None, description="tokens per sample")
    bad_endings: float | None = Field(
        None, description="share of samples that end in an article, a preposition or the like"
    )
    distinct_2: float | None = Field(None, description="share of different bigrams among all")
    eval_mean_length: float | None = Field(None, description="tokens per greedy text")
    eval_bad_endings: float | None = Field(None, description="as `bad_endings`, of greedy texts")


def reward_curve(logged: Iterable[Mapping[str, Any]]) -> list[RewardPoint]:
    """Points of the lines of metrics.jsonl that have a reward or a held-out metric."""
    return points_of(RewardPoint, logged, _FIGURES, ("reward", "held_out"))


def reward_section(
    points: Sequence[RewardPoint], phases: Sequence[PhaseFacts]
) -> dict[str, Any] | None:
    """As `section_of`, and `fell`: whether the held-out metric ended below its first value while
    the reward rose; None without points.
    """
    if not points:
        return None
    ends = first_and_last(points, ["reward", "held_out"])
    first, last = ends.get("held_out", (0.0, 0.0))
    fell = "reward" in ends and ends["reward"][1] > ends["reward"][0] and last < first
    return {**section_of(points, phases, _FIGURES, _CHARTS), "fell": fell}
