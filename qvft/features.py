"""`qvft features list|prune`: lists and prunes the cache of ViT features."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from qvft.data.features.folders import SHARD, Space, bytes_of, default_cache, remove, spaces
from qvft.errors import DataError, UserError
from qvft.files import given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program

_SHOWN_ID = 12
_DAY_S = 86_400.0


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Lists or prunes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft features", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--cache",
        type=given_path,
        metavar="DIR",
        help="default: $QVFT_CACHE or ~/.cache/qvft/features",
    )
    actions.add_parser("list", parents=[options], help="shows what the cache holds, and its size")
    prune = actions.add_parser(
        "prune", parents=[options], help="removes spaces of the cache, and prints the freed bytes"
    )
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
    if given.action == "prune" and given.cache is not None and not given.cache.is_dir():
        raise DataError("no such folder", where=f"command line: --cache {given.cache}")
    cache = given.cache or default_cache()
    if given.action == "list":
        show(cache)
    else:
        prune(cache, given)


def show(cache: Path) -> None:
    """A table of the spaces."""
    found = spaces(cache)
    if found:
        table = Table("space", "ViT", "pixels", "stored", "shape", "images", "size", "last used")
        for one in found:
            used = datetime.datetime.fromtimestamp(one.last_used).strftime("%Y-%m-%d %H:%M")
            size = _size(bytes_of(one.files))
            table.add_row(one.folder.name[:_SHOWN_ID], *_facts(one), size, used)
        stdout.print(table)
    total = _size(sum(bytes_of(one.files) for one in found))
    stdout.print(f"{len(found)} spaces, {total} in {cache}")
    old = [one for one in found if one.other_format]
    if old:
        size = _size(sum(bytes_of(one.files) for one in old))
        stdout.print(
            f"{len(old)} of them ({size}) are of another format, which this version does not "
            "read: `python -m qvft.features prune --old-format` removes them"
        )


def prune(cache: Path, given: argparse.Namespace) -> None:
    """Removes the chosen spaces and prints the freed bytes."""
    chosen = _chosen(cache, given)
    size = sum(bytes_of(one.files) for one in chosen)
    if not given.dry_run:
        for one in chosen:
            remove(one)
    verb = "would free" if given.dry_run else "freed"
    stdout.print(f"{verb} {size} bytes in {cache}: {len(chosen)} spaces")


def _chosen(cache: Path, given: argparse.Namespace) -> list[Space]:
    if not (given.all or given.old_format) and given.unused_days is None and given.space is None:
        raise UserError("nothing to prune", do="give --all, --space, --unused-days or --old-format")
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
    """ViT, image size and processor, stored type, shape and images of a space."""
    known = space.described
    if not known:
        return "space.json is damaged", "", "", "", ""
    preprocessing = known.get("preprocessing") or {}
    size = preprocessing.get("settings", {}).get("size", {})
    return (
        str(known.get("vit")),
        " ".join([*map(str, size.values()), str(preprocessing.get("processor", ""))]),
        str(known.get("stored_dtype")),
        f"{known.get('patches')} x {known.get('width')}",
        "another format" if space.other_format else _image_count(space.files),
    )


def _image_count(files: Sequence[Path]) -> str:
    from qvft.data.features.shards import read_keys

    keys: set[bytes] = set()
    damaged = 0
    for path in files:
        if path.suffix == SHARD:
            try:
                keys.update(read_keys(path))
            except (DataError, OSError):
                damaged += 1
    return f"{len(keys)}" + (f", {damaged} shards damaged" if damaged else "")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of days")
    return days


if __name__ == "__main__":
    sys.exit(main())
