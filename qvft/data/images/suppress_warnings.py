"""Suppresses warnings of Pillow and libtiff during decoding, across threads."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from PIL import Image

_NOWHERE = logging.NullHandler()


class _SharedContext:
    """A process-wide context: the first thread to enter opens it, the last to leave closes it.

    Separate changes per thread would be restored wrongly if blocks of two threads overlap.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[None]]) -> None:
        self._opened, self._lock, self._users = opened, threading.Lock(), 0
        self._stack = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._stack.enter_context(self._opened())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._stack.close()


@contextmanager
def _no_warnings() -> Iterator[None]:
    logger = logging.getLogger("PIL")
    propagates = logger.propagate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # `setLevel` clears a cache in each of the process's loggers: 1 ms for every image.
        logger.propagate = False
        logger.addHandler(_NOWHERE)
        try:
            yield
        finally:
            logger.removeHandler(_NOWHERE)
            logger.propagate = propagates


@contextmanager
def _no_stderr() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # the process has none
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


quiet_pillow = _SharedContext(_no_warnings)
"""Context manager: drops Pillow's warnings and log, except the decompression bomb warning, which is
an error."""
quiet_libtiff = _SharedContext(_no_stderr)
"""Context manager: silences file descriptor 2, to which libtiff writes about damaged files. Output
of other threads is lost too, so the block should decode only one TIFF."""
