"""Keeping Pillow's warnings from users while images decode, in several threads at once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_lock = threading.Lock()
_active: list[warnings.catch_warnings] = []
_users = 0


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Within the block warnings are dropped, but for the bomb warning, which is an error.

    `warnings.catch_warnings` alone would leave the filters wrong when blocks of two threads
    overlap: the first one in sets them and the last one out restores them.
    """
    global _users
    with _lock:
        if _users == 0:
            saved = warnings.catch_warnings()
            saved.__enter__()
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _active.append(saved)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _active.pop().__exit__(None, None, None)
