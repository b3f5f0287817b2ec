"""`qvft explain MODEL IMAGE [--question Q] --out F.png`: attention heatmaps.

A figure of the caption or answer with one heatmap per word.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.files import expanded, given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Explains; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft explain", description=__doc__)
    parser.add_argument("model", type=expanded, help="run folder, model folder or hub id")
    parser.add_argument("image", type=expanded, help="an image file")
    parser.add_argument("--question", help="asked about the image; without it, a caption")
    parser.add_argument(
        "--out",
        type=given_path,
        required=True,
        metavar="F",
        help="figure to write: .png, .svg, .pdf",
    )
    given = parser.parse_args(arguments)
    return exit_status(lambda: explain(given))


def explain(given: argparse.Namespace) -> None:
    """Image, model, text, figure."""
    from qvft.checking.before_torch import require_models
    from qvft.data.predict_inputs import the_one_row
    from qvft.evaluation.figure_formats import figure_format
    from qvft.files import require_writable
    from qvft.setup.resolve_model import resolve_model

    require_writable(given.out)
    figure_format(given.out, option="--out")
    opened = resolve_model(given.model)
    require_models(opened.recipe)
    row = the_one_row(given.image, question=given.question)

    # All checks that need no torch are done.
    from qvft.evaluation.explanation.explain import explain_image

    text = explain_image(opened, row, out=given.out)
    stdout.print(f"{text}\nwritten to {given.out}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
