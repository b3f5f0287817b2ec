"""`progress.html`: a run's page while it trains, rewritten now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from qvft.files import write_text
from qvft.log import get_logger, is_main_process

logger = get_logger("qvft.train")

EVERY_S, SHARE = 5.0, 0.02
"""Seconds between versions at least, and the share of time that writing them may take."""
FILE = "progress.html"

Draw = Callable[[Path, str, bool], str]
"""The page of a run folder, from its line of progress and whether it is still training:
`evaluation.report.progress_page.progress_page`."""


class ProgressPage:
    """Writes the page of a run folder; the main process alone does."""

    def __init__(self, folder: Path, draw: Draw) -> None:
        self.folder, self.draw, self.next, self.line = folder, draw, 0.0, ""

    def update(self, line: str, *, soon: bool = False) -> None:
        """Writes the page if it is time, or now if it should be soon.

        Training goes on where the page cannot be written; a warning says so.
        """
        self.line = line
        if soon or time.monotonic() >= self.next:
            self._write(line, running=True)

    def close(self, state: str) -> None:
        """Writes the page a last time, which then says `finished` or `stopped`."""
        self._write(f"{state}: {self.line}" if self.line else state, running=False)

    def _write(self, line: str, *, running: bool) -> None:
        # A run folder that vanished is not made anew.
        if not is_main_process() or not self.folder.is_dir():
            return
        begun = time.monotonic()
        try:
            write_text(self.folder / FILE, self.draw(self.folder, line, running))
        except OSError as error:
            logger.warning("%s cannot be written (%s)", self.folder / FILE, error)
        now = time.monotonic()
        self.next = now + max(EVERY_S, (now - begun) / SHARE)
