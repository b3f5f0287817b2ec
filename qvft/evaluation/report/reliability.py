"""Reliability diagram as inline SVG: accuracy by probability."""

from __future__ import annotations

import math

from qvft.evaluation.calibration import Calibration

_SIDE, _LEFT, _TOP, _BOTTOM = 320, 40, 12, 34


def reliability_chart(found: Calibration) -> str:
    """An `<svg>` with a dot per bin, beside the diagonal of perfect calibration."""

    def x(value: float) -> float:
        return round(_LEFT + (_SIDE - _LEFT - _TOP) * value, 1)

    def y(value: float) -> float:
        return round(_SIDE - _BOTTOM - (_SIDE - _BOTTOM - _TOP) * value, 1)

    parts = [
        f'<svg class="chart" style="max-width:{_SIDE}px" viewBox="0 0 {_SIDE} {_SIDE}" role="img" '
        f'aria-label="Accuracy by probability of {found.n} questions">'
    ]
    for tick in (0, 0.5, 1):
        parts += [
            f'<line class="grid" x1="{x(0)}" x2="{x(1)}" y1="{y(tick)}" y2="{y(tick)}"/>',
            f'<text x="{x(0) - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>',
            f'<text x="{x(tick)}" y="{y(0) + 16}" text-anchor="middle">{tick:g}</text>',
        ]
    parts.append(f'<line class="phase" x1="{x(0)}" x2="{x(1)}" y1="{y(0)}" y2="{y(1)}"/>')
    points = " ".join(f"{x(one.probability)},{y(one.accuracy)}" for one in found.bins)
    parts.append(f'<polyline class="line train" points="{points}"/>')
    parts += [
        f'<circle class="dot train" cx="{x(one.probability)}" cy="{y(one.accuracy)}" '
        f'r="{3 + 9 * math.sqrt(one.n / found.n):.1f}"><title>{one.n} questions: probability '
        f"{one.probability:.2f}, accuracy {one.accuracy:.2f}</title></circle>"
        for one in found.bins
    ]
    middle = x(0.5)
    parts.append(f'<text x="{middle}" y="{_SIDE - 4}" text-anchor="middle">probability</text>')
    return "".join([*parts, "</svg>"])
