"""Command-line options that say how data is read: shared by `qvft convert`, `init` and `pairs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from qvft.errors import RecipeError
from qvft.files import expanded


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
    """The values of an option's KEY=VALUE arguments.

    Raises:
        RecipeError: an argument has no `=`.
    """
    for one in given or ():
        if "=" not in one:
            raise RecipeError(one, where=f"command line: {option}", expected="KEY=VALUE")
    return dict(one.partition("=")[::2] for one in given or ())
