"""`python -m qvft.bench RECIPE [key.path=value ...] [--json F]`: throughput against the plain loop.

Measures prediction on the recipe's base and evaluation data, here and now: one `generate` call an
image and text, as transformers' examples do, against qvft's batches, in turn in one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.log import exit_status, stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft.bench", description=__doc__)
    parser.add_argument("recipe", help="YAML file; its model may be a run's merged folder")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--rounds", type=int, default=3, help="the median of this many is taken")
    parser.add_argument("--json", type=Path, metavar="F", help="write what was measured to F")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: bench(given))


def bench(given: argparse.Namespace) -> None:
    """Recipe, rounds, ratio, JSON."""
    from qvft.assembly.benching import bench_prediction
    from qvft.errors import RecipeError
    from qvft.files import write_json
    from qvft.recipe.load import load_recipe

    if given.rounds < 1:
        raise RecipeError(f"{given.rounds}", where="command line: --rounds", expected="1 or more")
    measured = bench_prediction(
        load_recipe(given.recipe, given.overrides),
        rounds=given.rounds,
    )
    stdout.print(
        f"{measured.texts} texts of {measured.images} images, median of {measured.rounds} rounds\n"
        f"  plain loop  {measured.plain.texts_per_second:10.2f} texts/s\n"
        f"  qvft        {measured.qvft.texts_per_second:10.2f} texts/s, in batches of "
        f"{measured.batch_size}\n"
        f"  ratio       {measured.speedup:10.2f}; {measured.equal_texts} texts are the same"
    )
    if given.json is not None:
        write_json(given.json, {"predict": dataclasses.asdict(measured)})


if __name__ == "__main__":
    sys.exit(main())
