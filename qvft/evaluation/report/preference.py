"""Preference phases in a report: reward accuracy, margins and log-probabilities by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from qvft.evaluation.report.logged_points import (
    LoggedPoint,
    charts_of,
    first_and_last,
    points_of,
)
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
    """Points of the lines of metrics.jsonl that have any of `LOGGED`."""
    return points_of(PreferencePoint, logged, LOGGED, LOGGED.values())


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
    ends = first_and_last(points, [field for field, _ in _LINES])
    fell = "reward_chosen" in ends and ends["reward_chosen"][1] < 0
    return {
        "lines": [(title, *ends[field]) for field, title in _LINES if field in ends],
        "charts": charts_of(points, phases, _CHARTS),
        "fell": fell,
    }
