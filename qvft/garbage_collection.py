"""Python's garbage collector: rare while libraries are imported, as usual once a model is loaded.

Importing torch and transformers makes half a million objects that stay. At the usual threshold of
700 the collector searches them again and again: a fifth of the time that the imports take.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARE = 300_000  # container objects between two collections
_usual: tuple[int, int, int] | None = None


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collects rarely, until `usual_collections` or the end of the `with` block."""
    global _usual
    if _usual is not None:  # `qvft train`: a program within a program
        yield
        return
    _usual = gc.get_threshold()
    gc.set_threshold(_RARE, *_usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*_usual)
        gc.unfreeze()
        _usual = None


def usual_collections() -> None:
    """Collects as usual from here on; what exists already is not searched again."""
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
