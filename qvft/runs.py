"""`qvft runs FOLDER`: the runs of a folder side by side, as table and as HTML page.

What differs between their recipes, status, scores with 95 % intervals, loss, time and memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.files import given_path
from qvft.log import exit_status
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
    return exit_status(lambda: _compare(given))


def _compare(given: argparse.Namespace) -> None:
    from qvft.experiments.compare_runs import compare_runs

    compare_runs(given.folder, page=given.html, json=given.json)


if __name__ == "__main__":
    sys.exit(main())
