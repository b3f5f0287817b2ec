"""`qvft merge RUN OUT`: merges a run into a plain checkpoint, and verifies it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.files import expanded
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.recipe.next_command import after_merge, print_next
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Merges; returns the exit status."""
    parser = RecipeParser(prog="qvft merge", description=__doc__)
    parser.add_argument("run", type=expanded, help="run folder of qvft.train")
    parser.add_argument("out", type=expanded, help="new folder for the merged model")
    parser.add_overrides()
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="type of the written weights; default: what the base is stored in",
    )
    parser.add_argument("--shard-size", default="5GB", help="largest file (default: 5GB)")
    parser.add_argument("--json", action="store_true", help="print merge.json, not a summary")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: _merge(given))


def _merge(given: argparse.Namespace) -> None:
    from qvft.api.merge import merge

    content = merge(
        Path(given.run),
        Path(given.out),
        dtype=given.dtype,
        shard_size=given.shard_size,
        overrides=given.overrides,
    )
    if given.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return

    from qvft.weights.merge import merge_summary

    for line in merge_summary(content):
        stdout.print(line)
    stdout.print(f"merged model written to {given.out}")
    print_next(after_merge(given.run, given.out))


if __name__ == "__main__":
    sys.exit(main())
