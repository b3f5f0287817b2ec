"""Preference phases in a report: reward accuracy, margins and log-probabilities by step."""

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
    "accuracy": "rewards/accuracies",
    "margin": "rewards/margins",
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "logps_chosen": "logps/chosen",
    "logps_rejected": "logps/rejected",
    "eval_accuracy": "eval_rewards/accuracies",
    "eval_margin": "eval_rewards/margins",
}
"""Fields of a point, and their names in metrics.jsonl, which are trl's."""
_LINES = (
    ("accuracy", "reward accuracy"),
    ("margin", "reward margin"),
    ("reward_chosen", "reward of the chosen text"),
    ("reward_rejected", "reward of the rejected text"),
    ("logps_chosen", "log-probability of the chosen text, nats"),
    ("logps_rejected", "log-probability of the rejected text, nats"),
    ("eval_accuracy", "reward accuracy on data.eval"),
    ("eval_margin", "reward margin on data.eval"),
)
_CHARTS = (
    ("Reward accuracy and margin", {"accuracy": "accuracy", "margin": "margin"}),
    ("Log-probability", {"chosen": "logps_chosen", "rejected": "logps_rejected"}),
)


class PreferencePoint(Part):
    """A logged step of a phase that learns from pairs; what was not logged or is not finite is
    null."""

    phase: str = Field(description="name of the phase")
    step: int = Field(description="optimizer step, counted anew in each phase")
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

    @field_validator(*LOGGED)
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None


def preference_curve(logged: Iterable[Mapping[str, Any]]) -> list[PreferencePoint]:
    """Points of the lines of metrics.jsonl that have any of `LOGGED`."""
    return [
        PreferencePoint(
            phase=row["phase"],
            step=row["step"],
            **{field: row[name] for field, name in LOGGED.items() if name in row},
        )
        for row in logged
        if row.keys() & set(LOGGED.values())
    ]


def preference_section(
    points: Sequence[PreferencePoint], phases: Sequence[PhaseFacts]
) -> dict[str, Any] | None:
    """Content of the page's section; None without points.

    Returns:
        `lines`: name, first and last value of each figure; `charts`: (title, wide, narrow);
        `fell`: whether the chosen texts have become less likely.
    """
    if not points:
        return None
    lines = []
    for field, title in _LINES:
        values = [value for point in points if (value := getattr(point, field)) is not None]
        if values:
            lines.append((title, values[0], values[-1]))
    own = [phase for phase in phases if phase.name in {point.phase for point in points}]
    charts = []
    for title, curves in _CHARTS:
        named = {name: [(p, getattr(p, field)) for p in points] for name, field in curves.items()}
        drawn = [Markup(line_chart(named, own, what=title, size=size)) for size in (WIDE, NARROW)]
        if drawn[0]:
            charts.append((title, *drawn))
    chosen = [p.reward_chosen for p in points if p.reward_chosen is not None]
    return {"lines": lines, "charts": charts, "fell": bool(chosen) and chosen[-1] < 0}
