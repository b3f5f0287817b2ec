"""Standard streams: unencodable characters, broken pipes."""

from __future__ import annotations

import codecs
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from qvft.disk import disk_failure
from qvft.errors import UserError


class Main(Protocol):
    """A program: from its arguments, or those of the command line, to its exit status."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


_ESCAPED = "qvft_escaped"


def program(main: Callable[..., int]) -> Main:
    """The `main` of a program, with streams that can be written to.

    Where nobody reads the output any more the program ends with status 1 and no word, and where
    the disk that it goes to is full with one. argparse, which ends programs itself, included.
    """

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        open_streams()
        try:
            try:
                status = main(arguments)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
            return 1
        except UserError as error:  # of an argument's type
            print(f"qvft: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.filename is not None:  # of an option that was looked at before all else
                print(f"qvft: {error.filename}: {error.strerror}.", file=sys.stderr)
                return 2
            said = disk_failure(error)
            if said is None:
                raise
            print(f"qvft: the output cannot be written ({said}).", file=sys.stderr)
            drop_output()
            return 1
        return status

    return run


def open_streams() -> None:
    """Opens standard streams that are closed, and has characters that they lack spelt as in JSON.

    A file that is opened later would get the number of a closed stream, and with it what C
    libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPED)


def drop_output() -> None:
    """Sends what is still to be printed nowhere, at the interpreter's end too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks as `\\u...`, so that JSON stays the same JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPED, _escaped)
