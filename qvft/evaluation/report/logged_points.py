"""Logged steps of preference and reward phases as points: first and last values, and charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from markupsafe import Markup
from pydantic import Field, field_validator

from qvft.evaluation.evaluation_facts import Part
from qvft.evaluation.report.loss_chart import NARROW, WIDE, line_chart
from qvft.evaluation.report.phases import PhaseFacts

Names = Mapping[str, str]
Figures = Mapping[str, tuple[str, str]]
"""By field of a point: its name in metrics.jsonl, and what the page calls it."""


class LoggedPoint(Part):
    """A logged step; what was not logged or is not finite is null."""

    phase: str = Field(description="name of the phase")
    step: int = Field(description="optimizer step, counted anew in each phase")

    @field_validator("*")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value


Point = TypeVar("Point", bound=LoggedPoint)


def points_of(
    kind: type[Point], logged: Iterable[Mapping[str, Any]], figures: Figures, having: Iterable[str]
) -> list[Point]:
    """Points of the lines of metrics.jsonl that have any of the fields `having`."""
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


def first_and_last(points: Sequence[LoggedPoint], fields: Iterable[str]) -> dict[str, tuple]:
    """First and last known value of each field that has any."""
    ends = {}
    for field in fields:
        values = [value for point in points if (value := getattr(point, field)) is not None]
        if values:
            ends[field] = values[0], values[-1]
    return ends


def section_of(
    points: Sequence[LoggedPoint],
    phases: Sequence[PhaseFacts],
    figures: Figures,
    charts: Iterable[tuple[str, Names]],
) -> dict[str, Any]:
    """Content of the page's section: `lines` with name, first and last value of each figure, and
    `charts` with title, wide and narrow picture of each that has values.

    Args:
        phases: of the run; those without points are left out.
        charts: title, and field of each curve by its name.
    """
    ends = first_and_last(points, figures)
    own = [phase for phase in phases if phase.name in {point.phase for point in points}]
    found = []
    for title, curves in charts:
        named = {name: [(p, getattr(p, field)) for p in points] for name, field in curves.items()}
        wide, narrow = (
            Markup(line_chart(named, own, what=title, size=size)) for size in (WIDE, NARROW)
        )
        if wide:
            found.append((title, wide, narrow))
    lines = [(title, *ends[field]) for field, (_, title) in figures.items() if field in ends]
    return {"lines": lines, "charts": found}
