"""`qvft explain MODEL IMAGE [--question Q] --out F.png`: attention heatmaps.

A figure of the caption or answer with one heatmap per word. The heatmaps' faithfulness is measured
by `MODEL --faithfulness [--recipe R] [--limit N] [--json F]` (evaluation data, with parts masked).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from qvft.files import expanded, given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Explains or measures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft explain", description=__doc__)
    parser.add_argument("model", type=expanded, help="run folder, model folder or hub id")
    parser.add_argument("image", type=expanded, nargs="?", help="an image file")
    parser.add_argument("--question", help="asked about the image; without it, a caption")
    parser.add_argument(
        "--out", type=given_path, metavar="F", help="figure to write: .png, .svg, .pdf"
    )
    parser.add_argument("--faithfulness", action="store_true", help="against random masks")
    parser.add_argument(
        "--recipe", type=expanded, help="for a model that is not a run: its evaluation data"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only N images of that data")
    parser.add_argument("--seed", type=int, default=0, help="of random masks and intervals")
    parser.add_argument("--json", type=given_path, metavar="F", help="write what was measured to F")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: explain(given))


def explain(given: argparse.Namespace) -> None:
    """A figure, or the measure of what such figures are worth."""
    from qvft.checking.before_torch import require_models, texts_of
    from qvft.data.predict_inputs import the_one_row
    from qvft.evaluation.figure_formats import figure_format
    from qvft.files import require_writable
    from qvft.json_files import write_json
    from qvft.setup.resolve_model import require_eval_data, resolve_model

    check_options(given)
    for path in (given.out, given.json):
        if path is not None:
            require_writable(path)
    overrides = [] if given.limit is None else [f"data.eval.limit={given.limit}"]
    opened = resolve_model(given.model, recipe_path=given.recipe, overrides=overrides)
    require_models(opened.recipe)
    if given.image is not None:
        figure_format(given.out, option="--out")
        row = the_one_row(given.image, question=given.question)
    else:
        require_eval_data(opened)
        texts_of(opened.recipe, ["eval"])

    # All checks that need no torch are done.
    from qvft.evaluation.explanation import explain as explaining

    if given.image is not None:
        text = explaining.explain_image(opened, row, out=given.out)
        stdout.print(f"{text}\nwritten to {given.out}", markup=False)
        return
    found = explaining.measure_faithfulness(opened, seed=given.seed)
    stdout.print(found.screen(), markup=False)
    if given.json is not None:
        write_json(given.json, {**dataclasses.asdict(found), "verdict": found.verdict})


def check_options(given: argparse.Namespace) -> None:
    """Refuses what does not go together, before a model is looked at; raises `RecipeError`."""
    from qvft.errors import RecipeError

    measured = given.faithfulness
    if given.image is not None and given.out is None:
        raise RecipeError("is not set", where="command line: --out", do="add --out FIGURE.png")
    for name, wrong, expected in (
        ("IMAGE", measured == (given.image is not None), "an image or --faithfulness"),
        ("--out", measured and given.out is not None, "it with an image"),
        ("--question", measured and given.question is not None, "it with an image"),
        ("--json", not measured and given.json is not None, "it with a measure"),
        ("--recipe", bool(given.recipe) and not measured, "it with --faithfulness"),
        ("--limit", given.limit is not None and not measured, "it with --faithfulness"),
        ("--limit", (given.limit or 1) < 1, "1 or more"),
        ("--seed", given.seed < 0, "0 or more"),
    ):
        if wrong:
            raise RecipeError("does not fit", where=f"command line: {name}", expected=expected)


if __name__ == "__main__":
    sys.exit(main())
