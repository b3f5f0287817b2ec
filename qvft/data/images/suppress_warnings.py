"""Suppresses warnings of Pillow and libtiff during decoding, across threads."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from PIL import Image

_STDERR = 2


class _Shared:
    """A process-wide change shared by threads: set by the first to enter, reset by the last to
    leave.

    Separate changes per thread would be restored wrongly if blocks of two threads overlap.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change, self._lock, self._users = change, threading.Lock(), 0
        self._made: AbstractContextManager[None] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._made = self._change()
                self._made.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0 and self._made is not None:
                    self._made.__exit__(None, None, None)


@contextmanager
def _no_warnings() -> Iterator[None]:
    logger = logging.getLogger("PIL")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def _no_stderr() -> Iterator[None]:
    try:
        kept = os.dup(_STDERR)
    except OSError:  # the process has none
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(null)


_python = _Shared(_no_warnings)
_libtiff = _Shared(_no_stderr)


def quiet_pillow() -> AbstractContextManager[None]:
    """Context manager: drops Pillow's warnings, except the decompression bomb warning, which is an
    error.

    Pillow's log is dropped too: without logging setup, Python prints its errors.
    """
    return _python()


def quiet_libtiff() -> AbstractContextManager[None]:
    """Context manager: silences file descriptor 2, to which libtiff writes about damaged files.

    Output of other threads is lost too, so the block should decode only one TIFF.
    """
    return _libtiff()
