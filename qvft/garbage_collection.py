"""Python's garbage collector: rare while libraries are imported, as usual once a model is loaded.

Importing torch and transformers makes half a million objects that stay. At the usual threshold of
700 the collector searches them again and again, a tenth of the time that the imports take, and at
the interpreter's end once more, which takes a second.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARE = 1_000_000  # container objects between two collections; they take about 100 MB
_usual: tuple[int, int, int] | None = None
_loaded = False


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collects rarely, until `usual_collections` or the end of the `with` block."""
    global _usual, _loaded
    if _usual is not None:  # `qvft train`: a program within a program
        yield
        return
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)  # its memory goes with the process
    _usual, _loaded = gc.get_threshold(), False
    gc.set_threshold(_RARE, *_usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*_usual)
        gc.unfreeze()
        _usual = None


def usual_collections() -> None:
    """Collects as usual from here on; what exists at the first call is not searched again."""
    global _loaded
    if _usual is not None and not _loaded:
        _loaded = True
        gc.freeze()
        gc.set_threshold(*_usual)
