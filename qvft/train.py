"""`qvft train RECIPE [key.path=value ...]`: trains a model from a recipe.

Several GPUs: `accelerate launch -m qvft.train RECIPE` starts a process for each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qvft.files import expanded
from qvft.log import exit_status, get_logger
from qvft.progress import counted
from qvft.recipe.command_line import RecipeParser
from qvft.recipe.next_command import after_training, print_next
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; returns the exit status."""
    parser = RecipeParser(prog="qvft train", description=__doc__)
    parser.add_argument(
        "recipe",
        type=expanded,
        help="YAML file, e.g. recipes/custom_jsonl.yaml; the folder recipes/ has one per task",
    )
    parser.add_overrides()
    given = parser.parse_args(arguments)
    return exit_status(
        lambda: _train(given.recipe, given.overrides),
        when_stopped="written files are complete; resume with train.resume=auto",
        many_processes=True,
    )


def _train(recipe: str, overrides: Sequence[str]) -> None:
    from qvft.api.train import train
    from qvft.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    get_logger("qvft.train").info("training %s in %s", loaded.name, loaded.run_dir)
    with counted("working"):
        train(loaded, named=recipe)
    print_next(after_training(loaded))


if __name__ == "__main__":
    sys.exit(main())
