"""`qvft sweep RECIPE key=a,b key2=x,y ...`: trains and evaluates every combination of values.

One run folder per combination. Repeat the command to go on: what has finished is skipped. Ends with
the table and page of `qvft runs`. A list is one value: key=[a,b].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.files import expanded, given_path
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sweep; returns the exit status."""
    parser = RecipeParser(prog="qvft sweep", description=__doc__)
    parser.add_argument("recipe", type=expanded, help="YAML file")
    parser.add_overrides()
    parser.add_argument(
        "--runs-dir", type=given_path, metavar="F", help="default: the recipe's run.dir + -sweep"
    )
    parser.add_argument(
        "--eval",
        action=argparse.BooleanOptionalAction,
        help="evaluate each run; default: where the recipe has data.eval.path",
    )
    parser.add_argument(
        "--launch", metavar="COMMAND", help='instead of python, e.g. "accelerate launch"'
    )
    parser.add_argument("--dry-run", action="store_true", help="list the combinations")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: _sweep(given), when_stopped="repeat the command to go on")


def _sweep(given: argparse.Namespace) -> None:
    from qvft.errors import FailedError
    from qvft.experiments.combinations import combinations
    from qvft.experiments.compare_runs import compare_runs
    from qvft.experiments.run_combinations import is_done, run_combinations

    found = combinations(given.recipe, given.overrides, given.runs_dir)
    has_test = any(source.path for _, source in found[0].recipe.data.sources("eval"))
    evaluates = has_test if given.eval is None else given.eval
    if given.dry_run:
        for one in found:
            state = "finished" if is_done(one, ["train", "eval"][: 1 + evaluates]) else "to run"
            stdout.print(f"{state:8}  {one.folder}  {' '.join(one.overrides)}", highlight=False)
        stdout.print(f"{len(found)} runs; next: the same command without --dry-run")
        return
    failed = run_combinations(found, given.recipe, evaluates=evaluates, launch=given.launch)
    compare_runs(found[0].folder.parent)
    if failed:
        raise FailedError(f"{failed} of {len(found)} combinations failed (see the table)")


if __name__ == "__main__":
    sys.exit(main())
