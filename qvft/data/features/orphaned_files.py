"""Files of writers that were killed: they can be seen by nobody, but take room."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from qvft.data.features.folders import INDEX, RECORDS

ABANDONED_AFTER_S = 3600.0
"""Seconds after which a file that no index belongs to and nobody writes to counts as left over. A
writer that was stopped for longer finds its shard gone and says so; starting again mends it."""


def leftovers(folder: Path, *, older_than_s: float = ABANDONED_AFTER_S) -> list[Path]:
    """Partial files, and records without an index, of a space's folder."""
    found = []
    before = time.time() - older_than_s
    for path in sorted(folder.iterdir()):
        partial = path.name.startswith(".") and path.name.endswith(".partial")
        records = path.name.endswith(RECORDS) and not partial
        orphan = records and not path.with_name(path.name.removesuffix(RECORDS) + INDEX).exists()
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished it
            if (partial or orphan) and path.stat().st_mtime < before:
                found.append(path)
    return found


def remove_leftovers(folder: Path, *, older_than_s: float = ABANDONED_AFTER_S) -> int:
    """Removes them and returns the bytes that it freed."""
    freed = 0
    for path in leftovers(folder, older_than_s=older_than_s):
        with contextlib.suppress(OSError):  # another process was faster, or it may only be read
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed
