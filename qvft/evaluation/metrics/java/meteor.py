"""METEOR 1.5 as the coco-caption toolkit computes it: by the official Java program.

The corpus score is computed from summed statistics; it is not the mean of the items' scores.

Source: Denkowski and Lavie 2014, "Meteor Universal"; github.com/salaniz/pycocoevalcap 1.2,
meteor/meteor.py (options and protocol).
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from qvft.errors import FailedError
from qvft.evaluation.metrics.java.official import java_command, tokenized

DEFINITION = (
    "METEOR/1.5: the official jar with `-l en -norm`, on PTB tokens of composed text, from 0 to 1."
)

_JAR = "meteor/meteor-1.5.jar"
_PARAPHRASES = "meteor/data/paraphrase-en.gz"
_OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
_SEPARATOR = "|||"
# Far above what is ever needed: it only ends a program that hangs.
_SECONDS_TO_START = 300.0
_SECONDS_AN_ITEM = 0.5


def meteor(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[float, dict[str, float]]:
    """METEOR of raw captions, composed and tokenised here: of all items together, and of each.

    An empty prediction scores 0, and its references still count in the corpus score.

    Raises:
        DataError: a predicted id has no references.
        MissingToolError: Java or the jar is not installed.
        FailedError: the program broke off or did not answer in time.
    """
    if not predictions:
        return 0.0, {}
    lines = [
        f" {_SEPARATOR} ".join(["SCORE", *(text.replace(_SEPARATOR, "") for text in texts)])
        for texts in tokenized(references, predictions).values()
    ]
    with _program(_SECONDS_TO_START + _SECONDS_AN_ITEM * len(lines)) as program:
        statistics = [program.ask(line) for line in lines]
        first = program.ask(f" {_SEPARATOR} ".join(["EVAL", *statistics]))
        scores = [float(first), *(float(program.answer()) for _ in lines)]
    return scores.pop(), dict(zip(predictions, scores, strict=True))


def command() -> list[str]:
    """The command line that starts the program.

    Raises:
        MissingToolError: Java or the jar is not installed.
    """
    java, folder = java_command(
        "METEOR", (_JAR, _PARAPHRASES), do="pip install --force-reinstall 'qvft[java]'"
    )
    return [*java, "-Xmx2G", "-jar", str(folder / _JAR), *_OPTIONS]


class _Program:
    """The running jar: one line in, one line out."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None and "\n" not in line
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure() from error
        return self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or line.startswith("Error"):
            raise self._failure(line)
        return line

    def _failure(self, line: str = "") -> FailedError:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        message = (line + "\n" + self._errors.read().decode(errors="replace")).strip()
        return FailedError(
            f"METEOR's Java program failed or did not answer in time: {message[-500:]}"
        )


@contextmanager
def _program(seconds: float) -> Iterator[_Program]:
    """The jar, ended on the way out whatever happens, and killed after `seconds`."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        ) as process,
    ):
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.start()
        try:
            yield _Program(process, errors)
        finally:
            watchdog.cancel()
            process.kill()
