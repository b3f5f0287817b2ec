"""`qvft features list|verify|prune`: the cache of ViT features."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.files import given_path
from qvft.log import exit_status, stderr, stdout
from qvft.terminal import program

_SHOWN_ID, _SHOWN_DAMAGED = 12, 20


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Lists, verifies or prunes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft features", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    options = {
        action: actions.add_parser(action, help=does, description=does)
        for action, does in (
            ("list", "shows what the cache holds, and what room it takes"),
            ("verify", "reads every shard; status 1 if one is not what was written"),
            ("prune", "removes shards, and says how many bytes that frees"),
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
    prune.add_argument("--unused-days", type=_days, metavar="N", help="shards unused for N days")
    prune.add_argument("--space", metavar="ID", help="this space alone; its id's beginning does")
    prune.add_argument("--damaged", action="store_true", help="shards that `verify` would name")
    prune.add_argument("--dry-run", action="store_true", help="removes nothing")
    given = parser.parse_args(arguments)
    return exit_status(lambda: act(given))


def act(given: argparse.Namespace) -> None:
    """Finds the cache and does what was asked."""
    from qvft.data.features.folders import default_cache
    from qvft.errors import DataError

    if given.action != "list" and given.cache is not None and not given.cache.is_dir():
        raise DataError("no such folder", where=f"command line: --cache {given.cache}")
    cache = given.cache or default_cache()
    if given.action == "list":
        show(cache)
    elif given.action == "verify":
        verify(cache)
    else:
        prune(cache, given)


def show(cache: Path) -> None:
    """A table of the spaces."""
    from rich.table import Table

    from qvft.data.features.listing import listed

    found = listed(cache)
    if found:
        table = Table("space", "ViT", "pixels", "stored", "shape", "images", "size", "last used")
        for one in found:
            space = one.space
            facts = (
                (space.vit, _pixels(space.preprocessing), space.stored_dtype,
                 f"{space.patches} x {space.width}")
                if space
                else ("space.json is damaged", "", "", "")
            )  # fmt: skip
            images = f"{one.images}" + (f", {one.damaged} shards damaged" if one.damaged else "")
            used = datetime.datetime.fromtimestamp(one.last_used).strftime("%Y-%m-%d %H:%M")
            table.add_row(one.folder.name[:_SHOWN_ID], *facts, images, _size(one.bytes), used)
        stdout.print(table)
    total = _size(sum(one.bytes for one in found))
    _say(f"{len(found)} spaces, {total} in {cache}")


def verify(cache: Path) -> None:
    """Reads everything; raises `VerificationError` with the damaged ones."""
    from rich.progress import Progress

    from qvft.data.features.folders import shard_names, space_folders
    from qvft.data.features.listing import verified
    from qvft.errors import VerificationError

    shards = sum(len(shard_names(folder)) for folder in space_folders(cache))
    done = []
    # Where nobody watches, a bar would fill the log with blank lines.
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("verify", total=shards)
        for one in verified(cache):
            done.append(one)
            progress.advance(task)
    damaged = [str(one.error) for one in done if one.error is not None]
    if damaged:
        more = len(damaged) - _SHOWN_DAMAGED
        rest = [f"... and {more} more"] if more > 0 else []
        raise VerificationError(
            "\n  ".join([f"{len(damaged)} damaged in {cache}:", *damaged[:_SHOWN_DAMAGED], *rest])
        )
    _say(f"{shards} shards, {_size(sum(one.bytes for one in done))} in {cache}: as written")


def prune(cache: Path, given: argparse.Namespace) -> None:
    """Removes, and says what."""
    from qvft.data.features import pruning

    gone = pruning.prune(
        cache,
        unused_days=given.unused_days,
        space=given.space,
        damaged=given.damaged,
        dry_run=given.dry_run,
    )
    parts = f"{gone.shards} shards, {gone.spaces} whole spaces, {gone.leftovers} left-over files"
    _say(f"{'would free' if given.dry_run else 'freed'} {gone.bytes} bytes in {cache}: {parts}")


def _pixels(preprocessing: object) -> str:
    """The size that images are brought to, and by what."""
    given = preprocessing if isinstance(preprocessing, dict) else {}
    size = given.get("settings", {}).get("size", {})
    return " ".join([*(f"{value}" for value in size.values()), str(given.get("processor", ""))])


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of days")
    return days


def _say(text: str) -> None:
    stdout.print(text, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
