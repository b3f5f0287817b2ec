"""`qvft export RUN OUT --to FORM`: exports a run's checkpoint to another format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.files import expanded
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Exports; returns the exit status."""
    parser = RecipeParser(prog="qvft export", description=__doc__)
    parser.add_argument("run", type=expanded, help="run folder of qvft.train")
    parser.add_argument("out", type=expanded, help="new folder for what is written")
    parser.add_overrides()
    parser.add_argument(
        "--to",
        required=True,
        metavar="FORM",
        help="peft: what plain PEFT loads; retrieval: a Blip2ForImageTextRetrieval, of a run with "
        "alignment objectives; qvision: the layout QVision was published in",
    )
    parser.add_argument("--json", action="store_true", help="print export.json, not a summary")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: export(given))


def export(given: argparse.Namespace) -> None:
    """Write, load as its users do, compare, summary."""
    from qvft.checking.before_torch import require_models
    from qvft.files import require_new
    from qvft.setup.run_recipe import run_recipe
    from qvft.weights.requirements import require_form, require_texts

    recipe = run_recipe(Path(given.run), given.overrides, program="export")
    require_form(Path(given.run), given.to)
    require_models(recipe)
    require_new(Path(given.out), folder=True)
    if given.to != "retrieval":  # which is proven by its weights
        require_texts(recipe)

    # All checks that need no torch are done.
    from qvft.weights.export import export_run, proof_line

    content = export_run(Path(given.run), Path(given.out), to=given.to, overrides=given.overrides)
    if given.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    stdout.print(f"loaded again: {proof_line(content)}", highlight=False)
    stdout.print(f"written to {given.out}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
