"""What libraries say while they decode does not reach users, in several threads at once."""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pytest
from PIL import Image

from qvft.data.images.decoding import decode
from qvft.data.images.suppress_warnings import quiet_libtiff, quiet_pillow
from qvft.errors import ImageError


def overlapping(quiet: Callable[[], AbstractContextManager[None]]) -> None:
    """Two blocks of two threads, of which the first in is the first out."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with quiet():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=stay)
    with quiet():
        thread.start()
        assert inside.wait(5)
    warnings.warn("dropped", DeprecationWarning, stacklevel=1)
    os.write(2, b"" if quiet is quiet_pillow else b"dropped")
    leave.set()
    thread.join()


def test_overlapping_blocks_of_threads_restore_warnings_and_logging() -> None:
    logger = logging.getLogger("PIL")
    before, handlers = list(warnings.filters), list(logger.handlers)
    overlapping(quiet_pillow)
    assert list(warnings.filters) == before
    assert (logger.propagate, logger.handlers) == (True, handlers)


@pytest.mark.filterwarnings("ignore:dropped")
def test_overlapping_blocks_of_threads_restore_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    overlapping(quiet_libtiff)
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_pillows_log_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with quiet_pillow():
        logging.getLogger("PIL.TiffImagePlugin").error("dropped")
    logging.getLogger("PIL.TiffImagePlugin").error("heard")
    assert caplog.messages == ["heard"]


class Damaged:
    """A TIFF with a byte of its packed pixels changed."""

    name = "damaged"

    def open(self) -> Image.Image:
        stream = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(stream, "TIFF", compression="tiff_adobe_deflate")
        content = bytearray(stream.getvalue())
        content[len(content) // 2] ^= 255
        return Image.open(io.BytesIO(content))


def test_libtiff_writes_of_damage_but_not_to_users(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError), Damaged().open() as image:
        image.load()
    assert "ZIPDecode" in capfd.readouterr().err
    with pytest.raises(ImageError):
        decode(Damaged())
    assert capfd.readouterr().err == ""


def test_many_threads_are_quiet_together(capfd: pytest.CaptureFixture[str]) -> None:
    before = list(warnings.filters)

    def attempt(_: int) -> None:
        with pytest.raises(ImageError):
            decode(Damaged())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(64)))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
    assert list(warnings.filters) == before


def test_a_process_without_stderr_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    with quiet_libtiff():
        pass
