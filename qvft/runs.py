"""`qvft runs FOLDER`: the runs of a folder side by side, as table and as HTML page.

What differs between their recipes, status, scores with 95 % intervals, loss, time and memory.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.files import given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Compares runs; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft runs", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=given_path, help="folder of runs, e.g. runs")
    parser.add_argument("--json", type=given_path, metavar="F", help="write all of it to F")
    parser.add_argument(
        "--html", type=given_path, metavar="F", help="the page; default: FOLDER/runs.html"
    )
    given = parser.parse_args(arguments)
    return exit_status(lambda: compare_runs(given.folder, page=given.html, json=given.json))


def compare_runs(folder: Path, *, page: Path | None = None, json: Path | None = None) -> None:
    """Reads, prints, and writes the page (None: FOLDER/runs.html) and the JSON."""
    from qvft.experiments.runs_page import write_page
    from qvft.experiments.side_by_side import runs_table, side_by_side
    from qvft.files import require_writable
    from qvft.json_files import write_json

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


if __name__ == "__main__":
    sys.exit(main())
