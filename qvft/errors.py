"""Exceptions of qvft and their exit codes.

`UserError` and its children: the input is wrong; an entry prints the one message and exits with 2.
`QvftError` itself and `FailedError`'s children: the work failed; an entry exits with 1.
Each class has a built-in exception as second base, so that callers may catch either.
"""

from __future__ import annotations

import re

_STOP = re.compile(r"(?<=[\w)\]}\"'`?!])[.;]+$")
"""The stop of a sentence; the dots of `..` and of a folder called `.` are none."""


class QvftError(Exception):
    """Root of all errors that qvft raises on purpose."""


class UserError(QvftError):
    """Something the user gave is wrong.

    The message says what was given, what was expected and what to do, in that order.

    Args:
        given: what was found, e.g. `"learning_rate" is not a key of train`.
        where: file (and line) or key path it was found at, e.g. `rows.jsonl:17` or `train.epochs`.
        expected: what would have been right.
        do: the next thing to try.
    """

    def __init__(
        self,
        given: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        do: str | None = None,
    ) -> None:
        self.given, self.where, self.expected, self.do = given, where, expected, do
        parts = [f"{where}: {given}" if where else given]
        if expected:
            parts.append(f"expected {expected}")
        if do:
            parts.append(do)
        text = "; ".join(_STOP.sub("", part) for part in parts)
        super().__init__(text if text.endswith("?") else text + ".")


class RecipeError(UserError, ValueError):
    """A recipe or an override cannot be read: unknown key, wrong type, contradiction."""


class DataError(UserError, ValueError):
    """A data file, row or split is missing or malformed."""


class ImageError(DataError):
    """An image is missing, truncated, of an unknown format, or too large to decode safely."""


class ModelError(UserError, ValueError):
    """A model id or folder cannot be used, or does not fit what the recipe asks of it."""


class CheckpointError(UserError, ValueError):
    """A run folder or checkpoint is missing, damaged, or belongs to another base or recipe."""


class SpaceError(UserError, OSError):
    """Not enough disk space for the output."""


class BusyError(UserError, OSError):
    """Another process is writing to the same place."""


class MissingToolError(UserError, OSError):
    """A needed program or package is not installed."""


class FailedError(QvftError, RuntimeError):
    """The input is valid but the work failed."""


class StoppedError(FailedError):
    """A signal stopped the work after it was saved; the message says how to resume.

    Args:
        message: what was stopped, and how to resume.
        signal: number of the signal; an entry exits with 128 more.
    """

    def __init__(self, message: str, *, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class PreflightError(FailedError):
    """A preflight check failed: training would be useless."""


class NonFiniteLossError(FailedError):
    """The loss or its gradient became NaN or infinite; the message names the step, the samples and
    where it first appears."""


class LossSpikeError(FailedError):
    """The loss of a step is a spike, and the recipe's policy is to stop."""


class MemoryRanOutError(FailedError, MemoryError):
    """A batch does not fit into memory and cannot be split."""


class NonFiniteWeightsError(FailedError):
    """Weights that are NaN or infinite were about to be written."""


class VerificationError(FailedError):
    """The written model differs from its source."""


def first_line(error: BaseException) -> str:
    """Message of an error, on one line; its class name if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
