"""Table of a folder's runs, and their page with curves and links: for `qvft runs` and `sweep`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader

from qvft.evaluation.report.loss_chart import line_chart
from qvft.experiments.side_by_side import SideBySide, runs_table, side_by_side
from qvft.files import require_writable, write_text
from qvft.json_files import write_json
from qvft.log import stdout


def compare_runs(folder: Path, *, page: Path | None = None, json: Path | None = None) -> None:
    """Reads, prints, and writes the page (None: FOLDER/runs.html) and the JSON; raises DataError if
    there is no run, or a file cannot be written.
    """
    found = side_by_side(folder)
    page = page or folder / "runs.html"
    for path in (page, json or page):
        require_writable(path)
    stdout.print(runs_table(found, width=stdout.width))
    for line in [*found.verdicts, *(f"skipped  {one}" for one in found.skipped)]:
        stdout.print(line, highlight=False)
    write_page(found, page)
    if json is not None:
        write_json(json, found.model_dump(mode="json"))
    stdout.print(f"page: {page}", highlight=False)
    scored = [run for run in found.runs if run.evaluations][:2]
    finished = [run for run in found.runs if run.status == "finished"][:1]
    named = [shlex.quote(str(run.folder)) for run in scored or finished]
    if named:
        stdout.print(f"next: qvft eval {' --against '.join(named)}", highlight=False)


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
        charts.append((title, line_chart(curves, (), what=title, classes=classes)))
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
