"""Prints the table of a folder's runs and writes their page: shared by `qvft runs` and `sweep`."""

from __future__ import annotations

import shlex
from pathlib import Path

from qvft.experiments.runs_page import write_page
from qvft.experiments.side_by_side import runs_table, side_by_side
from qvft.files import require_writable
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
