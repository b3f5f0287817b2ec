"""Argument parser that knows the recipe's keys (`--epochs 3` means `train.epochs=3`), and options
on how data is read, of `qvft convert`, `init` and `pairs`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from qvft.errors import RecipeError
from qvft.files import expanded
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


def add_data_options(parser: argparse.ArgumentParser, *, class_texts: bool = True) -> None:
    """Adds --images, --columns, --limit, --allow-outside (as `allow_paths_outside_root`),
    --copy-images and, with `class_texts`, --class-texts.
    """
    parser.add_argument(
        "--images", type=expanded, metavar="DIR", help="the images, where they lie apart"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        metavar="KEY=COLUMN",
        help="of tables (hf, csv): image=scan question=frage answer=antwort",
    )
    if class_texts:
        parser.add_argument(
            "--class-texts",
            nargs="+",
            action="extend",
            metavar="KEY=TEXT",
            help="of classes: question='What is it?' caption='a photo of a {class}'",
        )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument(
        "--allow-outside",
        dest="allow_paths_outside_root",
        action="store_true",
        default=None,
        help="images may lie outside the data's image folder, of the Hub too; nothing is logged",
    )
    parser.add_argument(
        "--copy-images", action="store_true", help="copy the images beside the new file, too"
    )


def values_by_key(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """The values of an option's KEY=VALUE arguments; raises RecipeError for another."""
    for one in given or ():
        if "=" not in one:
            raise RecipeError(one, where=f"command line: {option}", expected="KEY=VALUE")
    return dict(one.partition("=")[::2] for one in given or ())
