"""`qvft eval RUN [--against OTHER] [key.path=value ...]`: evaluates a model.

`accelerate launch -m qvft.eval` runs it on several processes.

RUN is a run folder; a merged folder or a base is evaluated with --recipe RECIPE. OTHER is a run, a
merged folder, a base, or the folder of an earlier evaluation; it is compared item by item.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.files import expanded, given_path
from qvft.log import exit_status, is_main_process, stdout
from qvft.progress import counted
from qvft.recipe.command_line import RecipeParser
from qvft.recipe.next_command import after_evaluation, print_next
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit status."""
    parser = RecipeParser(prog="qvft eval", description=__doc__)
    parser.add_argument("run", type=expanded, help="run folder, merged model folder or hub id")
    parser.add_overrides()
    parser.add_argument(
        "--recipe", type=expanded, help="for a model that is not a run: data, prompts, decoding"
    )
    parser.add_argument(
        "--out",
        type=given_path,
        help="folder of the report, or of those of several sources; default: beside the model",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an evaluation of other data or settings in that folder; without "
        "it, this one gets a folder beside it",
    )
    parser.add_argument(
        "--against",
        type=expanded,
        metavar="OTHER",
        help="run, model, or folder of an evaluation to compare with on the same items; an "
        "evaluation of RUN or OTHER that stands is used again where nothing has changed; default: "
        "the run that RUN started from (train.from), if it was evaluated on them",
    )
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: _evaluate(given), many_processes=True)


def _evaluate(given: argparse.Namespace) -> None:
    from qvft.api.evaluate import evaluate_each

    with counted("working"):
        results = evaluate_each(
            given.run,
            recipe_path=given.recipe,
            overrides=given.overrides,
            out=given.out,
            overwrite=given.overwrite,
            against=given.against,
        )
    if not is_main_process():
        return
    from qvft.evaluation.report.table import difference_table, score_table

    for result in results:
        report = result.report.to_json()
        stdout.print(score_table(report))
        for sentence in report["verdict"]:
            stdout.print(sentence, highlight=False)
        if report["against"] is not None:
            stdout.print(difference_table(report))
        for warning in report["warnings"]:
            stdout.print(f"warning  {warning}")
        stdout.print(f"report: {result.folder / 'report.html'}")
    print_next(after_evaluation(given.run))


if __name__ == "__main__":
    sys.exit(main())
