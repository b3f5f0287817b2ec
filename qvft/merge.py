"""`python -m qvft.merge RUN OUT`: merges a run into a plain checkpoint, and proves it."""

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
    """Merges; returns the exit status."""
    parser = RecipeParser(prog="qvft.merge", description=__doc__)
    parser.add_argument("run", type=expanded, help="run folder of qvft.train")
    parser.add_argument("out", type=expanded, help="new folder for the merged model")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="of the recipe")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="type of the written weights; default: what the base is stored in",
    )
    parser.add_argument("--shard-size", default="5GB", help="largest file (default: 5GB)")
    parser.add_argument("--json", action="store_true", help="print merge.json, not a summary")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: merge(given))


def merge(given: argparse.Namespace) -> None:
    """Plan, apply, write, verify, summary."""
    from qvft.checking.before_torch import require_models
    from qvft.files import require_new
    from qvft.setup.run_recipe import run_recipe
    from qvft.weights.requirements import require_texts
    from qvft.weights.shard_size import check_shard_size

    check_shard_size(given.shard_size)
    recipe = run_recipe(Path(given.run), given.overrides, program="merge")
    require_models(recipe)
    require_new(Path(given.out), folder=True)
    require_texts(recipe)

    # All mistakes that can be told without torch have been told.
    from qvft.weights.merge import merge_run

    content = merge_run(
        Path(given.run),
        Path(given.out),
        dtype=given.dtype,
        shard_size=given.shard_size,
        overrides=given.overrides,
    )
    if given.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return

    from qvft.weights.summary import merge_summary

    for line in merge_summary(content):
        stdout.print(line, highlight=False)
    stdout.print(f"merged model written to {given.out}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
