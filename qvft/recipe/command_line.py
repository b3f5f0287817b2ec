"""Argument parser that knows the recipe's keys: `--epochs 3` means `train.epochs=3`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

from qvft.errors import RecipeError
from qvft.recipe.section import Section, fields_by_key, section_of

_UNKNOWN = re.compile(r"unrecognized arguments: --([\w.-]+)(?:[= ]([^\s-]\S*))?")


class RecipeParser(argparse.ArgumentParser):
    """As argparse's, for programs that take overrides of a recipe."""

    def add_overrides(self) -> None:
        """Adds the `overrides` of a recipe."""
        self.add_argument(
            "overrides",
            nargs="*",
            metavar="key.path=value",
            help="any recipe key, e.g. train.epochs=3; docs/recipe_reference.md lists them",
        )

    def error(self, message: str) -> NoReturn:
        """Ends with status 2; names the override that an unknown option may have meant."""
        unknown = _UNKNOWN.match(message)
        if unknown:
            name, value = unknown[1].replace("-", "_"), unknown[2] or "VALUE"
            meant = list(dict.fromkeys(_overrides(name, value)))
            if meant:
                message += f"; did you mean {' or '.join(meant[:3])}?"
        super().error(message)


def require_least(
    given: argparse.Namespace, *, most: Mapping[str, float] | None = None, **least: float
) -> None:
    """Raises RecipeError if an option that is given is below its least value or above its most."""
    for name, lowest in least.items():
        found, highest = getattr(given, name), (most or {}).get(name)
        if found is None or (lowest <= found and (highest is None or found <= highest)):
            continue
        raise RecipeError(
            f"{found}",
            where=f"command line: --{name.replace('_', '-')}",
            expected=f"{lowest} or more" if highest is None else f"{lowest} to {highest}",
        )


def recipe_keys() -> list[str]:
    """Every key path of a recipe, e.g. `train.epochs`; sections included."""
    from qvft.recipe.schema import Recipe

    return list(_paths(Recipe))


def _overrides(name: str, value: str) -> Iterator[str]:
    """Overrides of the keys whose last part is `name`, or was before it was renamed."""
    from qvft.recipe.renamed_keys import NEW_VALUES, RENAMED
    from qvft.recipe.schema import Recipe

    for old, new in RENAMED.items():
        if (old == name or old.endswith(f".{name}")) and old not in NEW_VALUES:
            yield f"{new}={value}"
    for path in _paths(Recipe):
        if path == name or path.endswith(f".{name}"):
            yield f"{path}={value}"


def _paths(section: type[Section], above: str = "") -> Iterator[str]:
    for name, field in fields_by_key(section).items():
        yield f"{above}{name}"
        if inner := section_of(field.annotation):
            yield from _paths(inner, f"{above}{name}.")
