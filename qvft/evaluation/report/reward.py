"""Reward phases in a report: reward, held-out metric, KL and signs of a worse text by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from pydantic import Field, field_validator

from qvft.evaluation.evaluation_facts import Part
from qvft.evaluation.report.loss_chart import NARROW, WIDE, line_chart
from qvft.evaluation.report.phases import PhaseFacts

LOGGED = {
    "reward": "reward",
    "held_out": "eval_held_out",
    "kl": "kl",
    "zero_std": "frac_reward_zero_std",
    "mean_length": "completions/mean_length",
    "bad_endings": "completions/bad_endings",
    "distinct_2": "completions/distinct_2",
    "eval_mean_length": "eval_completions/mean_length",
    "eval_bad_endings": "eval_completions/bad_endings",
}
"""Fields of a point, and their names in metrics.jsonl, which are trl's where trl has them."""
_LINES = (
    ("reward", "reward of samples"),
    ("held_out", "held-out metric, greedy texts of data.eval"),
    ("kl", "KL divergence from the start, nats per token"),
    ("zero_std", "groups without spread, share"),
    ("mean_length", "tokens per sample"),
    ("bad_endings", "samples with a bad ending, share"),
    ("distinct_2", "distinct bigrams of samples, share"),
    ("eval_mean_length", "tokens per greedy text"),
    ("eval_bad_endings", "greedy texts with a bad ending, share"),
)
_CHARTS = (
    ("Reward and held-out metric", {"reward": "reward", "held out": "held_out"}),
    ("Bad endings and distinct bigrams", {"bad": "bad_endings", "distinct": "distinct_2"}),
)


class RewardPoint(Part):
    """A logged step of a phase that learns from rewards; what was not logged or is not finite is
    null."""

    phase: str = Field(description="name of the phase")
    step: int = Field(description="optimizer step, counted anew in each phase")
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

    @field_validator(*LOGGED)
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None


def reward_curve(logged: Iterable[Mapping[str, Any]]) -> list[RewardPoint]:
    """Points of the lines of metrics.jsonl that have a reward or a held-out metric."""
    return [
        RewardPoint(
            phase=row["phase"],
            step=row["step"],
            **{field: row[name] for field, name in LOGGED.items() if name in row},
        )
        for row in logged
        if {"reward", "eval_held_out"} & row.keys()
    ]


def reward_section(
    points: Sequence[RewardPoint], phases: Sequence[PhaseFacts]
) -> dict[str, Any] | None:
    """Content of the page's section; None without points.

    Returns:
        `lines`: name, first and last value of each figure; `charts`: (title, wide, narrow);
        `fell`: whether the held-out metric ended below its first value while the reward rose.
    """
    if not points:
        return None
    known = {
        field: [value for point in points if (value := getattr(point, field)) is not None]
        for field, _ in _LINES
    }
    ends = {field: (values[0], values[-1]) for field, values in known.items() if values}
    own = [phase for phase in phases if phase.name in {point.phase for point in points}]
    charts = []
    for title, curves in _CHARTS:
        named = {name: [(p, getattr(p, field)) for p in points] for name, field in curves.items()}
        drawn = [Markup(line_chart(named, own, what=title, size=size)) for size in (WIDE, NARROW)]
        if drawn[0]:
            charts.append((title, *drawn))
    first, last = ends.get("held_out", (0.0, 0.0))
    rose = "reward" in ends and ends["reward"][1] > ends["reward"][0]
    return {
        "lines": [(title, *ends[field]) for field, title in _LINES if field in ends],
        "charts": charts,
        "fell": rose and last < first,
    }
