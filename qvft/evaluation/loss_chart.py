"""The loss curve as inline SVG; its colours are classes of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

WIDTH, HEIGHT = 1030, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 104, 12, 28


class Point(Protocol):
    """A logged step."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def eval_loss(self) -> float | None: ...


def loss_chart(points: Sequence[Point]) -> str:
    """An `<svg>` of training and evaluation loss by step, of the values that are finite."""
    curves = {
        "train": [(p.step, p.loss) for p in points if p.loss is not None],
        "eval": [(p.step, p.eval_loss) for p in points if p.eval_loss is not None],
    }
    curves = {name: [(s, v) for s, v in c if math.isfinite(v)] for name, c in curves.items()}
    values = [value for curve in curves.values() for _, value in curve]
    steps = [step for curve in curves.values() for step, _ in curve]
    if not values:
        return ""
    low_y, high_y, ticks_y = _axis(min(values), max(values))
    low_x, high_x, ticks_x = _axis(min(0, *steps), max(steps), whole=True)
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x(step: float) -> float:
        return round(_LEFT + (right - _LEFT) * (step - low_x) / (high_x - low_x), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - _TOP) * (value - low_y) / (high_y - low_y), 1)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Loss by step: {_spoken(curves)}">'
    ]
    for tick in ticks_y:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(_text("tick", _LEFT - 8, at + 4, f"{tick:g}", anchor="end"))
    for tick in (tick for tick in ticks_x if tick <= max(steps)):
        parts.append(_text("tick", x(tick), bottom + 18, f"{tick:g}", anchor="middle"))
    parts.append(_text("tick", right + 34, bottom + 18, "step"))
    ends = _label_heights({name: y(curve[-1][1]) for name, curve in curves.items() if curve})
    for name, curve in curves.items():
        if not curve:
            continue
        line = " ".join(f"{x(step)},{y(value)}" for step, value in curve)
        parts.append(f'<polyline class="line {name}" points="{line}"/>')
        if name == "eval" or len(curve) == 1:
            parts += [
                f'<circle class="dot {name}" cx="{x(step)}" cy="{y(value)}" r="3.5">'
                f"<title>{name} loss {value:.4g} at step {step}</title></circle>"
                for step, value in curve
            ]
        last = f"{name} {curve[-1][1]:.3g}"
        parts.append(_text(f"label {name}", x(curve[-1][0]) + 10, ends[name] + 4, last))
    return "".join([*parts, "</svg>"])


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
    return (
        (low, high, [t for t in ticks if low <= t <= high])
        if whole
        else (ticks[0], ticks[-1], ticks)
    )


def _label_heights(heights: dict[str, float]) -> dict[str, float]:
    """The same heights, pushed apart to at least 16 pixels."""
    ordered = sorted(heights, key=lambda name: heights[name])
    if len(ordered) == 2 and heights[ordered[1]] - heights[ordered[0]] < 16:
        middle = (heights[ordered[0]] + heights[ordered[1]]) / 2
        return {ordered[0]: middle - 8, ordered[1]: middle + 8}
    return heights


def _spoken(curves: dict[str, list[tuple[int, float]]]) -> str:
    return ", ".join(
        f"{name} from {curve[0][1]:.3g} to {curve[-1][1]:.3g}"
        for name, curve in curves.items()
        if curve
    )
