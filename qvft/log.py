"""One logger for all ranks, and the consoles entries print to."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

from rich.console import Console

from qvft.errors import QvftError, UserError

OTHERS_WAIT = 3.0
"""Seconds that a process leaves the launcher to end it, which looks for failed ones ten times a
second, before it says what was wrong."""
_WIDTH = None if sys.stdout.isatty() else 120
stdout = Console(soft_wrap=True, width=_WIDTH)
stderr = Console(stderr=True, soft_wrap=True, width=_WIDTH)


def is_main_process() -> bool:
    """True on the one process that prints and writes files (global rank 0)."""
    return int(os.environ.get("RANK", "0")) == 0


def get_logger(name: str) -> logging.Logger:
    """The logger `name`; below WARNING it is silent on every rank but 0."""
    logger = logging.getLogger(name)
    if not is_main_process():
        logger.setLevel(logging.WARNING)
    return logger


def setup_logging() -> None:
    """Sends qvft's log to stderr, one line a record. Entries call it once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger("qvft")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


def _require_one_process() -> None:
    """Raises UserError where a launcher has started several."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise UserError(
            f"{processes} processes",
            where="accelerate launch",
            expected="one process: only training and evaluation share their work among several",
            do="start it with python -m",
        )


def exit_status(main: Callable[[], None], *, many_processes: bool = False) -> int:
    """Runs an entry's body and turns errors made for users into one message and a status.

    Under `accelerate launch` the main process says what is wrong. Another one does so if the main
    process does not: it waits a little for the launcher to end it.

    Args:
        main: the body.
        many_processes: whether several processes share the work; where they do not, starting
            several is a mistake.

    Returns:
        0 when `main` returns, 2 on a `UserError`, 1 on any other `QvftError` or when nobody reads
        the output any more, 130 on Ctrl-C. Other exceptions are defects and pass through with
        their traceback.
    """
    setup_logging()
    try:
        if not many_processes:
            _require_one_process()
        main()
    except QvftError as error:
        if is_main_process():
            print(f"qvft: {error}", file=sys.stderr)
        else:
            time.sleep(OTHERS_WAIT)
            print(f"qvft, process {os.environ['RANK']}: {error}", file=sys.stderr, flush=True)
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
