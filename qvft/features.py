"""`qvft features list|prune`: lists and prunes the cache of ViT features."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.files import given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program

if TYPE_CHECKING:
    from qvft.data.features.folders import Space

_SHOWN_ID = 12
_DAY_S = 86_400.0


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Lists or prunes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft features", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    options = {
        action: actions.add_parser(action, help=does, description=does)
        for action, does in (
            ("list", "shows what the cache holds, and its size on disk"),
            ("prune", "removes spaces of the cache, and says how many bytes that frees"),
        )
    }
    for one in options.values():
        one.add_argument(
            "--cache",
            type=given_path,
            metavar="DIR",
            help="default: $QVFT_CACHE or ~/.cache/qvft/features",
        )
    prune = options["prune"]
    prune.add_argument("--all", action="store_true", help="all spaces")
    prune.add_argument("--space", metavar="ID", help="this space; the beginning of its id will do")
    prune.add_argument(
        "--unused-days", type=_days, metavar="N", help="spaces not read or written for N days"
    )
    prune.add_argument(
        "--old-format", action="store_true", help="spaces that this version of qvft cannot read"
    )
    prune.add_argument("--dry-run", action="store_true", help="removes nothing")
    given = parser.parse_args(arguments)
    return exit_status(lambda: act(given))


def act(given: argparse.Namespace) -> None:
    """Finds the cache and does what was asked."""
    from qvft.data.features.folders import default_cache
    from qvft.errors import DataError

    if given.action == "prune" and given.cache is not None and not given.cache.is_dir():
        raise DataError("no such folder", where=f"command line: --cache {given.cache}")
    cache = given.cache or default_cache()
    if given.action == "list":
        show(cache)
    else:
        prune(cache, given)


def show(cache: Path) -> None:
    """A table of the spaces."""
    from rich.table import Table

    from qvft.data.features.folders import bytes_of, spaces

    found = spaces(cache)
    if found:
        table = Table("space", "ViT", "pixels", "stored", "shape", "images", "size", "last used")
        for one in found:
            used = datetime.datetime.fromtimestamp(one.last_used).strftime("%Y-%m-%d %H:%M")
            size = _size(bytes_of(one.files))
            table.add_row(one.folder.name[:_SHOWN_ID], *_facts(one), size, used)
        stdout.print(table)
    total = _size(sum(bytes_of(one.files) for one in found))
    _say(f"{len(found)} spaces, {total} in {cache}")
    old = [one for one in found if one.other_format]
    if old:
        size = _size(sum(bytes_of(one.files) for one in old))
        _say(
            f"{len(old)} of them ({size}) are of another format, which this version does not "
            "read: `python -m qvft.features prune --old-format` removes them"
        )


def prune(cache: Path, given: argparse.Namespace) -> None:
    """Removes what was chosen, and says what."""
    from qvft.data.features.folders import bytes_of, remove

    chosen = _chosen(cache, given)
    size = sum(bytes_of(one.files) for one in chosen)
    if not given.dry_run:
        for one in chosen:
            remove(one)
    does = "would free" if given.dry_run else "freed"
    _say(f"{does} {size} bytes in {cache}: {len(chosen)} spaces")


def _chosen(cache: Path, given: argparse.Namespace) -> list[Space]:
    from qvft.data.features.folders import spaces
    from qvft.errors import UserError

    if not (given.all or given.old_format) and given.unused_days is None and given.space is None:
        raise UserError(
            "nothing says what is to go",
            do="give --all, --space, --unused-days or --old-format",
        )
    chosen = spaces(cache)
    if given.space is not None:
        chosen = [one for one in chosen if one.folder.name.startswith(given.space)]
        if len(chosen) != 1:
            raise UserError(
                f"{len(chosen)} spaces begin with `{given.space}`",
                where=str(cache),
                expected="one",
                do="`python -m qvft.features list` shows their ids",
            )
    if given.unused_days is not None:
        before = time.time() - given.unused_days * _DAY_S
        chosen = [one for one in chosen if one.last_used < before]
    if given.old_format:
        chosen = [one for one in chosen if one.other_format]
    return chosen


def _facts(space: Space) -> tuple[str, str, str, str, str]:
    """ViT, pixels, stored type, shape and images of a space."""
    from qvft.data.features.shards import read_keys
    from qvft.errors import DataError

    known = space.described
    if not known:
        return "space.json is damaged", "", "", "", ""
    keys: set[bytes] = set()
    damaged = 0
    for path in space.files:
        if path.suffix == ".safetensors" and not space.other_format:
            try:
                keys.update(read_keys(path))
            except (DataError, OSError):
                damaged += 1
    images = f"{len(keys)}" + (f", {damaged} shards damaged" if damaged else "")
    return (
        str(known.get("vit")),
        _pixels(known.get("preprocessing")),
        str(known.get("stored_dtype")),
        f"{known.get('patches')} x {known.get('width')}",
        "another format" if space.other_format else images,
    )


def _pixels(preprocessing: Any) -> str:
    """The size that images are resized to, and the processor."""
    given = preprocessing if isinstance(preprocessing, dict) else {}
    size = given.get("settings", {}).get("size", {})
    return " ".join([*(f"{value}" for value in size.values()), str(given.get("processor", ""))])


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of days")
    return days


def _say(text: str) -> None:
    stdout.print(text, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
