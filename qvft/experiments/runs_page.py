"""The HTML page of `qvft runs`: table, loss curves over one another, links to the reports."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from qvft.evaluation.report.loss_chart import NARROW, WIDE, line_chart
from qvft.experiments.side_by_side import SideBySide
from qvft.files import write_text

MOST_CURVES = 10
"""Colours of the page."""


def write_page(found: SideBySide, path: Path) -> None:
    """Writes one self-contained file; its links are relative to it."""
    folder = os.path.dirname(os.path.realpath(path))
    links = []
    for run in found.runs:
        home = Path(os.path.relpath(os.path.realpath(run.folder), folder), "eval")
        links.append(
            {name: quote(f"{home.as_posix()}/{name}/report.html") for name in run.evaluations}
        )
    charts = []
    for title, loss in (("Training loss", "loss"), ("Evaluation loss", "eval_loss")):
        curves = {
            f"#{number}": [(point, getattr(point, loss)) for point in run.curve]
            for number, run in enumerate(found.runs[:MOST_CURVES], start=1)
        }
        classes = [f"c{number}" for number in range(MOST_CURVES)]
        sizes = [
            line_chart(curves, (), what=title, size=size, classes=classes)
            for size in (WIDE, NARROW)
        ]
        charts.append((title, Markup("".join(sizes))))
    environment = Environment(
        loader=PackageLoader("qvft.experiments", "."), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("runs.html.j2").render(
        found=found,
        head=list(found.columns),
        rows=list(zip(found.runs, links, zip(*found.columns.values(), strict=True), strict=True)),
        charts=[chart for chart in charts if chart[1]],
        most=MOST_CURVES,
    )
    write_text(path, page.encode(errors="replace").decode())
