"""Expands tar shard paths: a file, a folder, `train-{000000..000099}.tar`, `train-*.tar`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from qvft.data.formats.sample_builder import no_split
from qvft.errors import DataError

MAX_SHARDS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_EXPECTED = "a .tar file, a folder of them, train-{000000..000099}.tar or train-*.tar"


def shard_files(path: Path, *, split: str | None = None) -> list[Path]:
    """The shards of a file, folder, range or pattern in order of their names; all exist.

    A `split` selects shards of this name or `SPLIT-...` in a folder; otherwise it is only a label.
    """
    if path.is_dir():
        found = sorted(path.glob("*.tar"))
        if split is not None and found:
            splits = [shard.stem.partition("-")[0] for shard in found]
            if split not in splits:
                raise no_split(split, where=str(path), splits=set(splits))
            found = [shard for shard, name in zip(found, splits, strict=True) if name == split]
    else:
        names = _expand_ranges(str(path))
        if len(names) == 1 and glob.has_magic(names[0]):
            names = sorted(glob.glob(names[0]))
        found = [Path(name) for name in names]
    missing = next((shard for shard in found if not shard.is_file()), None)
    if not found or missing:
        given = "no such file" if missing else "no .tar file"
        where = str(missing or path)
        raise DataError(given, where=where, expected=_EXPECTED, do="check the path")
    return found


def shard_names(shards: Sequence[Path]) -> list[str]:
    """Prefixes of sample ids per shard: its path without `.tar`, relative to the common folder."""
    home = os.path.commonpath([os.path.dirname(shard) or "." for shard in shards])
    return [Path(os.path.relpath(shard, home)).with_suffix("").as_posix() for shard in shards]


def _expand_ranges(path: str) -> list[str]:
    found = _RANGE.search(path)
    if found is None:
        return [path]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MAX_SHARDS:
        expected = f"from a number up to a larger one, {MAX_SHARDS:,} shards at most"
        raise DataError(f"the range {found[0]}", where=path, expected=expected)
    rest = _expand_ranges(path[found.end() :])
    numbers = (str(number).zfill(len(found[1])) for number in range(first, last + 1))
    return [f"{path[: found.start()]}{number}{end}" for number in numbers for end in rest]
