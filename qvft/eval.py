"""`python -m qvft.eval RUN [key.path=value ...]`: evaluates a domain checkpoint.

RUN is a run folder; a merged folder or a base is evaluated with --recipe RECIPE.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.log import exit_status, stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft.eval", description=__doc__)
    parser.add_argument("run", help="run folder, merged model folder or hub id")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--recipe", help="for a model that is no run: data, prompts, decoding")
    parser.add_argument("--out", type=Path, help="folder of the report; default: beside the model")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: evaluate_target(given))


def evaluate_target(given: argparse.Namespace) -> None:
    """Model, data, predictions, scores, report."""
    from qvft.assembly.data import source_name
    from qvft.assembly.evaluation import evaluate, output_folder
    from qvft.assembly.opening import open_target, require_eval_data
    from qvft.evaluation.table import score_table

    opened = open_target(given.run, recipe_path=given.recipe, overrides=given.overrides)
    source = require_eval_data(opened)
    folder = given.out or output_folder(opened, source_name(source))
    result = evaluate(opened, folder)
    stdout.print(score_table(result.report.to_json()))
    stdout.print(f"report: {result.folder / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
