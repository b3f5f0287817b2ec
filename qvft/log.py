"""Rank-aware logger and consoles."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from signal import SIG_DFL, SIGINT, SIGTERM, getsignal, raise_signal, signal
from types import FrameType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from qvft.disk import disk_failure
from qvft.errors import QvftError, StoppedError, UserError
from qvft.progress import held
from qvft.terminal import drop_output

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but tab and line break, what turns the direction of writing, half pairs."""


def shown(text: str) -> str:
    """A text with control characters escaped as in JSON, so that JSON stays valid.

    Captions, ids and file names are untrusted, and an escape sequence can rewrite the screen.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class PlainConsole(Console):
    """A console that removes control characters from texts, but not those of rich itself."""

    def print(self, *objects: Any, **settings: Any) -> None:
        with held():
            super().print(*objects, **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _UNSEEN.sub("", text), style, control)


OTHERS_WAIT = 10.0
"""Seconds that a process waits for the launcher to end it, before it prints its error: the main
process takes seconds to end on a busy machine."""
_WIDTH = None if sys.stdout is not None and sys.stdout.isatty() else 120
_SETTINGS: dict[str, Any] = {"soft_wrap": True, "width": _WIDTH, "emoji": False}
_SETTINGS |= {"markup": False, "highlight": False}
stdout, stderr = PlainConsole(**_SETTINGS), PlainConsole(stderr=True, **_SETTINGS)


def is_main_process() -> bool:
    """True on the one process that prints and writes files (global rank 0)."""
    return int(os.environ.get("RANK", "0")) == 0


def get_logger(name: str) -> logging.Logger:
    """The logger `name`; below WARNING it is silent on every rank but 0."""
    logger = logging.getLogger(name)
    if not is_main_process():
        logger.setLevel(logging.WARNING)
    return logger


@contextlib.contextmanager
def collected_warnings(name: str) -> Iterator[list[str]]:
    """Context manager: a list of the warnings of loggers below `name`."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


class _LineFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return shown(super().formatMessage(record)).replace("\n", "\\n")


class _LogHandler(logging.StreamHandler):
    def emit(self, record: logging.LogRecord) -> None:
        with held():
            super().emit(record)


def setup_logging() -> None:
    """Sends qvft's log to stderr, one line per record. Entries call it once."""
    handler = _LogHandler(sys.stderr)
    handler.setFormatter(_LineFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger("qvft")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled as Ctrl-C is, so that files are closed and partial ones removed."""


def exit_status(
    main: Callable[[], None], *, when_stopped: str = "", many_processes: bool = False
) -> int:
    """Runs an entry's body and turns user errors into one message and an exit status.

    Under `accelerate launch` the main process prints the message; another one does if the main
    process has none.

    Args:
        main: the body.
        when_stopped: what to do after Ctrl-C or SIGTERM.
        many_processes: whether several processes share the work; otherwise starting several is an
            error.

    Returns:
        0 when `main` returns, 2 on a `UserError`, 1 on any other `QvftError`, on errors of the disk
        or of files, or on a broken pipe, 130 on Ctrl-C, 143 on SIGTERM. Other exceptions are
        defects and pass through with their traceback.
    """
    setup_logging()
    try:
        with _terminable():
            processes = int(os.environ.get("WORLD_SIZE", "1"))
            if processes > 1 and not many_processes:
                raise UserError(
                    f"{processes} processes",
                    where="accelerate launch",
                    expected="one process: only training and evaluation use several",
                    do="start it with python -m",
                )
            main()
    except StoppedError as error:
        _print_error(f"qvft: {error}")
        return 128 + error.signal
    except QvftError as error:
        if is_main_process():
            _print_error(f"qvft: {error}")
        else:
            time.sleep(OTHERS_WAIT)
            message = shown(f"qvft, process {os.environ['RANK']}: {error}")
            print(message, file=sys.stderr, flush=True)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt as error:
        _print_error("\nqvft: stopped" + (f"; {when_stopped}" if when_stopped else ""))
        return 128 + (SIGTERM if isinstance(error, Terminated) else SIGINT)
    except BrokenPipeError:
        drop_output()
        return 1
    except Exception as error:
        cause = disk_failure(error)
        if cause is None and isinstance(error, OSError) and error.filename is not None:
            cause = error.strerror  # a folder that vanished or may not be written to
        if cause is None:
            raise
        where = getattr(error, "filename", None) or "the disk"
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            _print_error(f"qvft: {where}: {cause}.")
            return 2
        _print_error(f"qvft: {where}: cannot be written or read ({cause}).")
        return 1
    return 0


def _print_error(text: str) -> None:
    if is_main_process():
        print(shown(text), file=sys.stderr)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM, unless another handler is set or this is a child process."""
    owner = os.getpid()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or getsignal(SIGTERM) is not SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker
            signal(number, SIG_DFL)
            raise_signal(number)
        raise Terminated

    signal(SIGTERM, terminate)
    try:
        yield
    finally:
        signal(SIGTERM, SIG_DFL)
