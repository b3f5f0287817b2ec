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
from qvft.garbage_collection import rare_collections


class Main(Protocol):
    """A program: from its arguments, or those of the command line, to its exit status."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


_ESCAPED = "qvft_escaped"


def program(main: Callable[..., int]) -> Main:
    """The `main` of a program, with open streams; a broken pipe or a full disk ends it with 1."""

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        open_streams()
        try:
            try:
                with rare_collections():
                    status = main(arguments)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
            return 1
        except UserError as error:  # raised by an argument's type
            print(f"qvft: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.filename is not None:  # a path of an option
                print(f"qvft: {error.filename}: {error.strerror}.", file=sys.stderr)
                return 2
            cause = disk_failure(error)
            if cause is None:
                raise
            print(f"qvft: the output cannot be written ({cause}).", file=sys.stderr)
            drop_output()
            return 1
        return status

    return run


def open_streams() -> None:
    """Opens standard streams that are closed; characters that they cannot encode are escaped.

    A file that is opened later would get the number of a closed stream, and the output of C
    libraries with it.
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
    """Discards output that is still buffered, also at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Escapes characters that an encoding lacks as `\\u...`, so that JSON stays valid."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPED, _escaped)
