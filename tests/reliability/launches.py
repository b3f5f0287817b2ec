"""Trains a recipe under two processes in each way of launching, and compares with one process.

    python tests/reliability/launches.py RECIPE FOLDER [--ways ddp fsdp] [key.path=value ...]

Each way is a file of recipes/accelerate. One process takes twice as many batches a step. Prints the
largest difference of a trained weight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from qvft.recipe.load import load_recipe

WAYS = Path(__file__).resolve().parents[2] / "recipes" / "accelerate"


def largest_difference(one: Path, two: Path) -> float:
    """Of any weight in two adapter folders with the same files."""
    files = sorted(path.name for path in one.glob("*.safetensors"))
    largest = 0.0
    for file in files:
        first, second = load_file(one / file), load_file(two / file)
        assert first.keys() == second.keys()
        largest = max(largest, *((first[k] - second[k]).abs().max().item() for k in first))
    return largest


def main() -> int:
    """Trains all ways; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("folder", type=Path)
    parser.add_argument("changes", nargs="*", metavar="key.path=value")
    parser.add_argument("--ways", nargs="+", default=["ddp", "fsdp"])
    given = parser.parse_intermixed_args()
    accumulation = load_recipe(given.recipe, given.changes).train.gradient_accumulation_steps
    train = ["-m", "qvft.train", given.recipe, *given.changes]
    one = [
        f"run.dir={given.folder / 'one'}",
        f"train.gradient_accumulation_steps={2 * accumulation}",
    ]
    subprocess.run([sys.executable, *train, *one], check=True)
    found = {}
    for way in given.ways:
        launch = ["--config_file", str(WAYS / f"{way}.yaml"), "--num_processes", "2"]
        command = [sys.executable, "-m", "accelerate.commands.launch", *launch, *train]
        subprocess.run([*command, f"run.dir={given.folder / way}"], check=True)
        folders = given.folder / "one" / "adapter", given.folder / way / "adapter"
        found[way] = largest_difference(*folders)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
