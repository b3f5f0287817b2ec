"""The combinations of a sweep: `key=a,b` overrides to recipes, each with a folder's name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qvft.errors import RecipeError
from qvft.experiments.differing_keys import short_names
from qvft.recipe.load import load_recipe
from qvft.recipe.schema import Recipe

LONGEST_NAME = 120


@dataclass(frozen=True)
class Combination:
    """A run of a sweep: its folder, its overrides of the recipe, and the recipe that they make."""

    folder: Path
    overrides: list[str]
    recipe: Recipe


def combinations(path: str, given: Sequence[str], runs: Path | None) -> list[Combination]:
    """Every combination of the values, in the order given; the last key changes fastest.

    Args:
        given: `key=value` or `key=value,value,...` overrides.
        runs: folder of the run folders; None: the recipe's run folder with `-sweep` appended.

    Raises:
        RecipeError: no key with several values, a key twice, or a combination is no valid recipe.
    """
    axes: dict[str, list[str]] = {}
    for override in given:
        key, equals, text = override.partition("=")
        if not equals:
            load_recipe(path, [override])  # refuses it
        if key in axes or key == "run.dir":
            do = "write --runs-dir F" if key == "run.dir" else f"write {key}=a,b"
            raise RecipeError("is set by the sweep or twice", where=f"command line: {key}", do=do)
        axes[key] = list(dict.fromkeys(split_values(text)))
    swept = [key for key, values in axes.items() if len(values) > 1]
    if not swept:
        example = "train.epochs=3,6 trainable.lora.r=8,16"
        raise RecipeError("nothing to sweep", where="command line", expected=f"e.g. {example}")
    runs = runs or Path(f"{load_recipe(path).run_dir}-sweep")
    short = short_names(swept)
    found: dict[Path, Combination] = {}
    for values in itertools.product(*axes.values()):
        pairs = dict(zip(axes, values, strict=True))
        name = "_".join(f"{short[key]}={pairs[key]}" for key in swept)
        folder = runs / re.sub(r"[^\w.=+-]+", "-", name)[:LONGEST_NAME].strip(" .")
        while folder in found:  # values that differ in other characters, or after so many
            folder = folder.with_name(f"{folder.name}+")
        overrides = [f"{key}={value}" for key, value in pairs.items()]
        recipe = load_recipe(path, [*overrides, f"run.dir={folder}"])
        found[folder] = Combination(folder, overrides, recipe)
    return list(found.values())


def split_values(text: str) -> list[str]:
    """The values between commas; a comma in brackets, braces or quotes separates none."""
    values, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            values.append("")
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and (depth or not values[-1].strip()):
            quote = letter
        depth += 0 if quote else (letter in "[{") - (letter in "]}")
        values[-1] += letter
    return values
