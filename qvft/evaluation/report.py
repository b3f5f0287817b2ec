"""The report of an evaluation: `report.json`, typed, and `report.html`, one file on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator

from qvft.evaluation.report_page import render_page
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import Scores
from qvft.files import write_json, write_text


class LossPoint(BaseModel):
    """A logged step of training; either loss may be absent. NaN and infinity become absent."""

    model_config = ConfigDict(frozen=True)

    step: int
    loss: float | None = None
    eval_loss: float | None = None

    @field_validator("loss", "eval_loss")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None


class Skipped(BaseModel):
    """An item that was not scored, and why."""

    model_config = ConfigDict(frozen=True)

    id: str
    reason: str


class Report(BaseModel):
    """What `report.json` holds. Percentages are 0 to 100; `units` states each metric's scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="what was evaluated on what, e.g. `vqa_rad test`")
    n: int = Field(description="items scored")
    n_by_group: dict[str, int] = Field(default={}, description="items by group of metrics")
    metrics: dict[str, float] = Field(description="value by name")
    intervals: dict[str, tuple[float, float]] = Field(
        default={}, description="95 % bootstrap interval by name, whole images drawn"
    )
    units: dict[str, str] = Field(default={}, description="`percent`, `0..1` or `0..10` by name")
    definitions: dict[str, str] = Field(
        default={}, description="name/version and a sentence, by name of metric or baseline"
    )
    baselines: dict[str, dict[str, float]] = Field(
        default={},
        description="metrics of `base`, `most_frequent_answer`, `blind` (images shuffled)",
    )
    breakdowns: dict[str, list[dict[str, Any]]] = Field(
        default={}, description="by key, an entry a value: value, n, exact_match and other means"
    )
    counts: dict[str, float] = Field(
        default={}, description="items read, skipped, scored; empty, different, unparseable outputs"
    )
    skipped: list[Skipped] = Field(default=[], description="items left out, with the reason")
    decode: dict[str, Any] = Field(
        default={}, description="generation settings, prompt template, batch size"
    )
    model: dict[str, Any] = Field(default={}, description="id, weight hash, adapter")
    data: dict[str, Any] = Field(default={}, description="format, file name, split, hash")
    versions: dict[str, str] = Field(default={}, description="of qvft and its libraries")
    loss_curve: list[LossPoint] = Field(default=[], description="from the training run")
    wall_seconds: float | None = Field(default=None, description="of the evaluation")

    @classmethod
    def from_scores(cls, scores: Scores, **fields: Any) -> Report:
        """A report of `scores`; `fields` are the fields that scores do not know.

        `counts` given here joins the scores' own; so does `definitions`.
        """
        return cls(
            n=scores.n["all"],
            n_by_group={name: n for name, n in scores.n.items() if name != "all"},
            metrics=scores.metrics,
            intervals=scores.intervals,
            units=scores.units,
            definitions={**scores.definitions, **fields.pop("definitions", {})},
            breakdowns=scores.breakdowns,
            counts={**fields.pop("counts", {}), **scores.counts},
            **fields,
        )

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, in the order of the fields."""
        return self.model_dump(mode="json")


def write_report(
    folder: Path,
    report: Report,
    rows: Sequence[PredictionRow],
    per_item: Sequence[Mapping[str, float | str]],
    *,
    image_for: Callable[[str], Image.Image] | None = None,
    grid: int = 24,
) -> None:
    """Writes `report.json` and `report.html` into `folder`.

    Args:
        rows: what was predicted, for the grid of images.
        per_item: the rows' scores, parallel to them.
        image_for: the decoded picture of an image's name; None leaves pictures out. It is called
            only for the items of the grid, and may raise `ImageError`.
        grid: items shown at most: the lowest scores, unparseable answers, and a spread of all.
    """
    write_json(folder / "report.json", report.to_json())
    page = render_page(report, rows, per_item, image_for=image_for, grid=grid)
    write_text(folder / "report.html", page)
