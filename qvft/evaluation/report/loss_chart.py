"""Loss and other curves as inline SVG; colours are classes of the page's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from pydantic import Field, field_validator

from qvft.evaluation.evaluation_facts import Part
from qvft.evaluation.report.phases import PhaseFacts

WIDTH = 560
_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 240, 44, 104, 12, 28
"""In pixels; the last values stand on the right."""
_MARKS = 20
"""Room above the plot for the names of phases."""
_LETTER = 6.7
"""Width of a letter of 12 pixels, generously."""


class LoggedPoint(Part):
    """A logged step; what was not logged or is not finite is null."""

    phase: str | None = Field(None, description="name of the phase; null in older reports")
    step: int = Field(description="optimizer step, counted anew in each phase")

    @field_validator("*")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value


class LossPoint(LoggedPoint):
    """A logged step of training; either loss may be absent."""

    loss: float | None = Field(None, description="of training")
    eval_loss: float | None = Field(None, description="of the evaluation data while training")


Curves = Mapping[str, Sequence[tuple[LoggedPoint, float | None]]]
"""Values at logged steps, by the name of the curve."""


@dataclass(frozen=True)
class _Spot:
    """A finite loss: the step in its phase, the step counted through all phases, the value."""

    step: int
    at: int
    value: float


def loss_chart(points: Sequence[LossPoint], phases: Sequence[PhaseFacts] = ()) -> Markup:
    """`line_chart` of training and evaluation loss."""
    curves = {"train": [(p, p.loss) for p in points], "eval": [(p, p.eval_loss) for p in points]}
    return line_chart(curves, phases, what="Loss", dotted=("eval",))


def line_chart(
    curves: Curves,
    phases: Sequence[PhaseFacts],
    *,
    what: str,
    dotted: Collection[str] = (),
    classes: Sequence[str] = ("train", "eval"),
) -> Markup:
    """An `<svg>` of curves by step, of the values that are finite; empty if there are none.

    With several phases the steps go on from one to the next, a curve is cut where a phase begins,
    and a dashed line with its name marks the place.

    Args:
        curves: in the order in which they were logged.
        phases: in order. Points of none of them begin at step 0.
        what: what is drawn, for readers of the page's text.
        dotted: names of curves with a dot per value.
        classes: style of each curve.
    """
    points = [point for curve in curves.values() for point, _ in curve]
    starts, total = _starts(points, phases)
    class_of = dict(zip(curves, classes, strict=False))
    pieces_of = {name: _cut(curve, starts) for name, curve in curves.items()}
    spots = [spot for pieces in pieces_of.values() for piece in pieces for spot in piece]
    if not spots:
        return Markup()
    values = [spot.value for spot in spots]
    marks = starts if len(starts) > 1 else {}
    top = _TOP + (_MARKS if marks else 0)
    low_y, high_y, ticks_y = _axis(min(values), max(values))
    last_step = max(total, *(spot.at for spot in spots))
    low_x, high_x, ticks_x = _axis(0, last_step, whole=True)
    right, bottom = WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(step: float) -> float:
        return round(_LEFT + (right - _LEFT) * (step - low_x) / (high_x - low_x), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * (value - low_y) / (high_y - low_y), 1)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{what} by step: {_description(pieces_of, marks)}">'
    ]
    for tick in ticks_y:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(_text("tick", _LEFT - 8, at + 4, f"{tick:g}", anchor="end"))
    for tick in (tick for tick in ticks_x if tick <= last_step):
        parts.append(_text("tick", x(tick), bottom + 18, f"{tick:g}", anchor="middle"))
    parts.append(_text("tick", right + 34, bottom + 18, "step"))
    places = [*(x(start) for start in marks.values()), WIDTH]
    for index, (name, start) in enumerate(marks.items()):
        ends = (places[index], places[index + 1])
        parts.append(_mark(f"{index + 1} {name}", start, ends, top=top, bottom=bottom))
    heights = _label_heights(
        {name: y(p[-1][-1].value) for name, p in pieces_of.items() if p}, top=top, bottom=bottom
    )
    for name, pieces in pieces_of.items():
        kind = class_of[name]
        for piece in pieces:
            line = " ".join(f"{x(spot.at)},{y(spot.value)}" for spot in piece)
            parts.append(f'<polyline class="line {kind}" points="{line}"/>')
            if name in dotted or len(piece) == 1:
                parts += [
                    f'<circle class="dot {kind}" cx="{x(spot.at)}" cy="{y(spot.value)}" r="3.5">'
                    f"<title>{name} {what.lower()} {spot.value:.4g} at step {spot.step}</title>"
                    "</circle>"
                    for spot in piece
                ]
        if pieces:
            last = pieces[-1][-1]
            label = f"{name} {last.value:.3g}"
            parts.append(_text(f"label {kind}", x(last.at) + 10, heights[name] + 4, label))
    return Markup("".join([*parts, "</svg>"]))


def _starts(
    points: Sequence[LoggedPoint], phases: Sequence[PhaseFacts]
) -> tuple[dict[str, int], int]:
    """Steps taken before each phase in which any was taken, and in all of them."""
    starts: dict[str, int] = {}
    total = 0
    for phase in phases:
        logged = [point.step for point in points if point.phase == phase.name]
        taken = max([phase.steps or 0, *logged])
        if taken:
            starts[phase.name] = total
            total += taken
    return starts, total


def _cut(
    curve: Sequence[tuple[LoggedPoint, float | None]], starts: dict[str, int]
) -> list[list[_Spot]]:
    """The finite values of a curve, in a piece for each phase."""
    pieces: dict[str | None, list[_Spot]] = {}
    for point, value in curve:
        if value is not None and math.isfinite(value):
            at = starts.get(point.phase or "", 0) + point.step
            pieces.setdefault(point.phase, []).append(_Spot(point.step, at, value))
    return list(pieces.values())


def _mark(name: str, start: int, ends: tuple[float, float], *, top: int, bottom: int) -> str:
    """The beginning of a phase: its line, and its name where there is room up to the next."""
    left, right = ends
    label = html.escape(name if len(name) * _LETTER < right - left else name.partition(" ")[0])
    line = f'<line class="phase" x1="{left}" x2="{left}" y1="{top - 10}" y2="{bottom}">'
    title = f"<title>phase {html.escape(name)} begins after {start} steps</title></line>"
    return line + title + _text("phase", left + 4, top - 10, label)


def _text(classes: str, x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text class="{classes}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _axis(low: float, high: float, *, whole: bool = False) -> tuple[float, float, list[float]]:
    """Bounds and ticks at round values, about five of them."""
    if high <= low:
        high = low + (1 if whole else max(abs(low), 1e-6) * 0.1)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    if whole:
        step = max(1, round(step))
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [round(step * k, 10) for k in range(first, last + 1)]
    if whole:
        return low, high, [tick for tick in ticks if low <= tick <= high]
    return ticks[0], ticks[-1], ticks


def _label_heights(heights: dict[str, float], *, top: int, bottom: int) -> dict[str, float]:
    """The same heights, pushed apart to at least 16 pixels, in the plot or 8 above it."""
    blocks: list[list[str]] = []

    def first(block: list[str]) -> float:
        reach = 8 * (len(block) - 1)
        middle = sum(heights[name] for name in block) / len(block)
        return min(max(middle - reach, top - 8), bottom - 2 * reach)

    for name in sorted(heights, key=lambda name: heights[name]):
        blocks.append([name])
        while len(blocks) > 1 and first(blocks[-1]) - first(blocks[-2]) < 16 * len(blocks[-2]):
            block = blocks.pop()
            blocks[-1] += block
    return {name: first(block) + 16 * n for block in blocks for n, name in enumerate(block)}


def _description(curves: dict[str, list[list[_Spot]]], marks: dict[str, int]) -> str:
    label = [
        f"{name} from {pieces[0][0].value:.3g} to {pieces[-1][-1].value:.3g}"
        for name, pieces in curves.items()
        if pieces
    ]
    label += [f"phase {html.escape(name)} begins at {start}" for name, start in marks.items()]
    return ", ".join(label)
