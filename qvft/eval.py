"""`python -m qvft.eval RUN [--against OTHER] [key.path=value ...]`: evaluates a domain checkpoint.

`accelerate launch -m qvft.eval` does the same on several processes, each of which answers a share.

RUN is a run folder; a merged folder or a base is evaluated with --recipe RECIPE. OTHER is a run, a
merged folder, a base, or the folder of an earlier evaluation; it is compared item by item.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.files import expanded, given_path
from qvft.log import exit_status, is_main_process, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit status."""
    parser = RecipeParser(prog="qvft.eval", description=__doc__)
    parser.add_argument("run", type=expanded, help="run folder, merged model folder or hub id")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument(
        "--recipe", type=expanded, help="for a model that is no run: data, prompts, decoding"
    )
    parser.add_argument(
        "--out", type=given_path, help="folder of the report; default: beside the model"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an evaluation of other data or settings that stands in that folder; without "
        "it, this one gets a folder beside it",
    )
    parser.add_argument(
        "--against",
        type=expanded,
        metavar="OTHER",
        help="run, model, or folder of an evaluation to compare with on the same items; an "
        "evaluation of RUN or OTHER that stands is used again where nothing has changed",
    )
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: evaluate_target(given), many_processes=True)


def evaluate_target(given: argparse.Namespace) -> None:
    """Model, data, predictions, scores, comparison, report."""
    from qvft.checking.before_torch import require_models
    from qvft.data.rows import evaluation_rows
    from qvft.evaluation.available_metrics import (
        require_installed_metrics,
        require_known_metrics,
        require_metrics,
    )
    from qvft.evaluation.compared_model import compared_with
    from qvft.evaluation.output_folder import output_folder, place_of, require_replaceable
    from qvft.setup.data import listed, source_name
    from qvft.setup.resolve_model import require_eval_data, resolve_model

    opened = resolve_model(
        given.run, recipe_path=given.recipe, overrides=given.overrides, program="eval"
    )
    source = require_eval_data(opened)
    require_models(opened.recipe)
    require_known_metrics(opened.recipe.eval.metrics)
    require_installed_metrics(opened.recipe.eval.metrics)
    folder = given.out or output_folder(opened, source_name(source))
    require_replaceable(folder)
    if given.against is not None:
        other = compared_with(
            given.against, opened, recipe_path=given.recipe, overrides=given.overrides
        )
        if other is not None:
            require_models(other.recipe)
    texts = listed(opened.recipe, "eval")
    if opened.recipe.data.on_bad_image == "error":  # all of these texts are going to be used
        require_metrics(opened, evaluation_rows(texts.samples, texts=source.texts))

    # All mistakes that can be told without torch have been told.
    from qvft.evaluation.compare_runs import evaluate_against
    from qvft.evaluation.report.table import difference_table, score_table
    from qvft.evaluation.run import evaluate
    from qvft.evaluation.task import prepare

    task = prepare(opened, texts=texts)
    folder = place_of(task, folder, named=given.out is not None, overwrite=given.overwrite)
    if given.against is None:
        result = evaluate(task, folder, overwrite=given.overwrite)
    else:
        result = evaluate_against(
            task,
            folder,
            given.against,
            recipe_path=given.recipe,
            overrides=given.overrides,
            overwrite=given.overwrite,
        )
    if not is_main_process():
        return
    report = result.report.to_json()
    stdout.print(score_table(report))
    for sentence in report["verdict"]:
        stdout.print(sentence, highlight=False)
    if report["against"] is not None:
        stdout.print(difference_table(report))
    for warning in report["warnings"]:
        stdout.print(f"warning  {warning}")
    stdout.print(f"report: {result.folder / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
