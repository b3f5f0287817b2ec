"""Preference and reward phases in a report: rewards, margins, KL and other figures by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import Field

from qvft.evaluation.report.loss_chart import LoggedPoint, line_chart
from qvft.evaluation.report.phases import PhaseFacts

Figures = Mapping[str, tuple[str, str]]
"""By field of a point: its name in metrics.jsonl (trl's, where trl has it), and on the page."""
Charts = Mapping[str, Mapping[str, str]]
"""By title: field of each curve by its name."""

_PREFERENCE: Figures = {
    "accuracy": ("rewards/accuracies", "reward accuracy"),
    "margin": ("rewards/margins", "reward margin"),
    "reward_chosen": ("rewards/chosen", "reward of the chosen text"),
    "reward_rejected": ("rewards/rejected", "reward of the rejected text"),
    "logps_chosen": ("logps/chosen", "log-probability of the chosen text, nats"),
    "logps_rejected": ("logps/rejected", "log-probability of the rejected text, nats"),
    "eval_accuracy": ("eval_rewards/accuracies", "reward accuracy on data.eval"),
    "eval_margin": ("eval_rewards/margins", "reward margin on data.eval"),
}
_PREFERENCE_CHARTS: Charts = {
    "Reward accuracy and margin": {"accuracy": "accuracy", "margin": "margin"},
    "Log-probability": {"chosen": "logps_chosen", "rejected": "logps_rejected"},
}
_REWARD: Figures = {
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
_REWARD_CHARTS: Charts = {
    "Reward and held-out metric": {"reward": "reward", "held out": "held_out"},
    "Bad endings and distinct bigrams": {"bad": "bad_endings", "distinct": "distinct_2"},
}


class PreferencePoint(LoggedPoint):
    """A logged step of a phase that learns from pairs."""

    accuracy: float | None = Field(
        None, description="share of pairs whose chosen text has the higher reward"
    )
    margin: float | None = Field(None, description="reward of the chosen minus the rejected text")
    reward_chosen: float | None = Field(
        None, description="beta times what the chosen text's log-probability has gained"
    )
    reward_rejected: float | None = Field(None, description="the same of the rejected text")
    logps_chosen: float | None = Field(
        None, description="log-probability of the chosen text, nats, mean over pairs"
    )
    logps_rejected: float | None = Field(None, description="of the rejected text")
    eval_accuracy: float | None = Field(None, description="accuracy on the evaluation data's pairs")
    eval_margin: float | None = Field(None, description="margin on the evaluation data's pairs")


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


Point = TypeVar("Point", bound=LoggedPoint)


def preference_curve(logged: Iterable[Mapping[str, Any]]) -> list[PreferencePoint]:
    """Points of the lines of metrics.jsonl that have any of these figures."""
    return _points(PreferencePoint, logged, _PREFERENCE, having=_PREFERENCE)


def reward_curve(logged: Iterable[Mapping[str, Any]]) -> list[RewardPoint]:
    """Points of the lines of metrics.jsonl that have a reward or a held-out metric."""
    return _points(RewardPoint, logged, _REWARD, having=("reward", "held_out"))


def _points(
    kind: type[Point], logged: Iterable[Mapping[str, Any]], figures: Figures, having: Iterable[str]
) -> list[Point]:
    wanted = {figures[field][0] for field in having}
    return [
        kind(
            phase=row["phase"],
            step=row["step"],
            **{field: row[name] for field, (name, _) in figures.items() if name in row},
        )
        for row in logged
        if row.keys() & wanted
    ]


def preference_section(
    points: Sequence[PreferencePoint], phases: Sequence[PhaseFacts]
) -> dict[str, Any] | None:
    """As `_section`; `fell`: whether the chosen texts have become less likely."""
    section = _section(points, phases, _PREFERENCE, _PREFERENCE_CHARTS)
    if section is not None:
        section["fell"] = section["ends"].get("reward_chosen", (0, 0))[1] < 0
    return section


def reward_section(
    points: Sequence[RewardPoint], phases: Sequence[PhaseFacts]
) -> dict[str, Any] | None:
    """As `_section`; `fell`: whether the held-out metric fell while the reward rose."""
    section = _section(points, phases, _REWARD, _REWARD_CHARTS)
    if section is not None:
        (reward, reward_now), (held_out, held_out_now) = (
            section["ends"].get(name, (0, 0)) for name in ("reward", "held_out")
        )
        section["fell"] = reward_now > reward and held_out_now < held_out
    return section


def _section(
    points: Sequence[LoggedPoint],
    phases: Sequence[PhaseFacts],
    figures: Figures,
    charts: Charts,
) -> dict[str, Any] | None:
    """Content of a section of the page; None without points.

    `ends`: first and last known value by field; `lines`: the same with the page's names; `charts`:
    title and picture of each that has values, of the phases that have points.
    """
    if not points:
        return None
    ends = {}
    for field in figures:
        values = [value for point in points if (value := getattr(point, field)) is not None]
        if values:
            ends[field] = values[0], values[-1]
    own = [phase for phase in phases if phase.name in {point.phase for point in points}]
    drawn = [
        (
            title,
            line_chart(
                {n: [(p, getattr(p, f)) for p in points] for n, f in curves.items()},
                own,
                what=title,
            ),
        )
        for title, curves in charts.items()
    ]
    return {
        "ends": ends,
        "lines": [(figures[field][1], *values) for field, values in ends.items()],
        "charts": [(title, chart) for title, chart in drawn if chart],
    }
