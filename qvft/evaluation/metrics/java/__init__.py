"""METEOR and SPICE by the official Java programs: optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qvft.evaluation.metrics.java import meteor, spice

Score = Callable[[Mapping[str, Sequence[str]], Mapping[str, str]], tuple[float, dict[str, float]]]


@dataclass(frozen=True)
class JavaMetric:
    """A metric: how it scores raw captions, its definition, and whether it can be had.

    `score(references, predictions)` gives the value of all items and that of each;
    `require_installed` raises `MissingToolError`.
    """

    score: Score
    definition: str
    require_installed: Callable[[], object]


BY_JAVA = {
    "METEOR": JavaMetric(meteor.meteor, meteor.DEFINITION, meteor.command),
    "SPICE": JavaMetric(spice.spice, spice.DEFINITION, spice.tool),
}
