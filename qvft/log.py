"""One logger for all ranks, and the consoles entries print to."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from qvft.errors import QvftError, UserError

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but tab and line break, what turns the direction of writing, half pairs."""


def shown(text: str) -> str:
    """A text for a terminal: what a terminal would obey instead of showing is spelt out.

    Captions, ids and file names come from strangers, and an escape sequence can rewrite the screen.
    The spelling is JSON's, so that JSON stays the same JSON.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class PlainConsole(Console):
    """A console that takes no text for markup and sends a terminal no character that it obeys.

    In tables such characters are left out, since widths are known by then. What rich itself sends
    (colours, the cursor of a progress bar) passes.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _UNSEEN.sub("", text), style, control)


_WIDTH = None if sys.stdout.isatty() else 120
stdout = PlainConsole(soft_wrap=True, width=_WIDTH, markup=False, emoji=False)
stderr = PlainConsole(stderr=True, soft_wrap=True, width=_WIDTH, markup=False, emoji=False)


def is_main_process() -> bool:
    """True on the one process that prints and writes files (global rank 0)."""
    return int(os.environ.get("RANK", "0")) == 0


def get_logger(name: str) -> logging.Logger:
    """The logger `name`; below WARNING it is silent on every rank but 0."""
    logger = logging.getLogger(name)
    if not is_main_process():
        logger.setLevel(logging.WARNING)
    return logger


class _Lines(logging.Formatter):
    """One line a record, whatever names stand in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return shown(super().formatMessage(record)).replace("\n", "\\n")


def setup_logging() -> None:
    """Sends qvft's log to stderr, one line a record. Entries call it once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger("qvft")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


def exit_status(main: Callable[[], None]) -> int:
    """Runs an entry's body and turns errors made for users into one message and a status.

    Returns:
        0 when `main` returns, 2 on a `UserError`, 1 on any other `QvftError` or when nobody reads
        the output any more, 130 on Ctrl-C. Other exceptions are defects and pass through with
        their traceback.
    """
    setup_logging()
    try:
        main()
    except QvftError as error:
        if is_main_process():
            print(f"qvft: {shown(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        if is_main_process():
            print("\nqvft: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # What is left in the buffer has nowhere to go, at the interpreter's end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
