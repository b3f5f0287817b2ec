"""`python -m qvft.evaluation.summary NAME=FOLDER ...`: prints several reports as one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from qvft.errors import DataError
from qvft.evaluation.report.table import comparison_table
from qvft.files import given_path
from qvft.json_files import read_json
from qvft.log import exit_status, stdout
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft.evaluation.summary", description=__doc__)
    parser.add_argument("reports", nargs="+", metavar="NAME=FOLDER")
    given = parser.parse_args(arguments)
    return exit_status(lambda: stdout.print(comparison_table(read_reports(given.reports))))


def read_reports(named: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Contents of `report.json` by name.

    Args:
        named: NAME=FOLDER; the folder holds `report.json`, or one folder that does.

    Raises:
        DataError: no name or one given twice, or not exactly one report below the folder.
    """
    reports = {}
    for item in named:
        name, equals, folder = item.partition("=")
        if not equals or name in reports:
            raise DataError(
                f'"{item}"', where="command line", expected="NAME=FOLDER, each name once"
            )
        found = sorted(given_path(folder).glob("report.json")) or sorted(
            given_path(folder).glob("*/report.json")
        )
        if len(found) != 1:
            raise DataError(f"{len(found)} reports", where=folder, expected="exactly one")
        reports[name] = read_json(found[0])
    return reports


if __name__ == "__main__":
    sys.exit(main())
