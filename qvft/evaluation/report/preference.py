"""Preference phases in a report: reward accuracy, margins and log-probabilities by step."""

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
    "accuracy": ("rewards/accuracies", "reward accuracy"),
    "margin": ("rewards/margins", "reward margin"),
    "reward_chosen": ("rewards/chosen", "reward of the chosen text"),
    "reward_rejected": ("rewards/rejected", "reward of the rejected text"),
    "logps_chosen": ("logps/chosen", "log-probability of the chosen text, nats"),
    "logps_rejected": ("logps/rejected", "log-probability of the rejected text, nats"),
    "eval_accuracy": ("eval_rewards/accuracies", "reward accuracy on data.eval"),
    "eval_margin": ("eval_rewards/margins", "reward margin on data.eval"),
}
"""The names in metrics.jsonl are trl's."""
_CHARTS = (
    ("Reward accuracy and margin", {"accuracy": "accuracy", "margin": "margin"}),
    ("Log-probability", {"chosen": "logps_chosen", "rejected": "logps_rejected"}),
)


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


def preference_curve(logged: Iterable[Mapping[str, Any]]) -> list[PreferencePoint]:
    """Points of the lines of metrics.jsonl that have any of these figures."""
    return points_of(PreferencePoint, logged, _FIGURES, _FIGURES)


def preference_section(
    points: Sequence[PreferencePoint], phases: Sequence[PhaseFacts]
) -> dict[str, Any] | None:
    """As `section_of`, and `fell`: whether the chosen texts have become less likely; None without
    points.
    """
    if not points:
        return None
    ends = first_and_last(points, ["reward_chosen"]).values()
    fell = any(last < 0 for _, last in ends)
    return {**section_of(points, phases, _FIGURES, _CHARTS), "fell": fell}
