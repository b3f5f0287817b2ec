"""Writes `report.json` and a self-contained `report.html`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from qvft.evaluation.report.page import render_page
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow
from qvft.files import write_text
from qvft.json_files import write_json


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
        rows: predictions, for the image grid.
        per_item: scores, parallel to the rows.
        image_for: decodes an image by name; None: no images. Called only for the items of the grid;
            may raise `ImageError`.
        grid: maximum number of items: lowest scores, unparseable answers, items that changed
            against the other run, and a spread of all.
    """
    write_json(folder / "report.json", report.to_json())
    page = render_page(report, rows, per_item, image_for=image_for, grid=grid)
    write_text(folder / "report.html", page)
