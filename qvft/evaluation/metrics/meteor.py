"""METEOR 1.5 by the official Java program, as the coco-caption toolkit calls it: optional.

The jar is that of the package `pycocoevalcap`, which is looked up but never imported; nothing is
downloaded.

Source: Denkowski and Lavie 2014, "Meteor Universal"; github.com/salaniz/pycocoevalcap 1.2,
meteor/meteor.py (options and protocol).
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from qvft.errors import DataError, FailedError, MissingToolError
from qvft.evaluation.metrics.tokenize import tokenize
from qvft.evaluation.metrics.unicode_letters import composed

DEFINITION = (
    "METEOR/1.5: the official jar with `-l en -norm`, on PTB tokens of composed text, from 0 to 1."
)

_JAR = "meteor/meteor-1.5.jar"
_PARAPHRASES = "meteor/data/paraphrase-en.gz"
# Numbers are read and written with a full stop, and text as UTF-8, whatever the user's locale.
_LOCALE = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")
_OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
_SEPARATOR = "|||"


def meteor(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[float, dict[str, float]]:
    """METEOR of raw captions, composed and tokenised here: of all items together, and of each.

    The former is computed from summed statistics; it is not the mean of the items. An empty
    prediction scores 0, and its references still count.

    Raises:
        DataError: a predicted id has no references.
        MissingToolError: Java or the jar is not installed.
        FailedError: the program broke off or did not end in time.
    """
    if not predictions:
        return 0.0, {}
    without = [key for key in predictions if not references.get(key)]
    if without:
        raise DataError(
            f"no references for {without[0]!r}", expected="references for every predicted id"
        )
    lines = []
    for key, prediction in predictions.items():
        texts = (" ".join(tokenize(composed(text))) for text in (*references[key], prediction))
        parts = ["SCORE", *(text.replace(_SEPARATOR, "") for text in texts)]
        lines.append(f" {_SEPARATOR} ".join(parts))
    *scores, value = _ask(lines)
    return value, dict(zip(predictions, scores, strict=True))


def _ask(lines: Sequence[str]) -> list[float]:
    """Scores of lines `SCORE ||| reference ||| ... ||| prediction`, and of all of them."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            meteor_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        ) as process,
    ):
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None

        def ask(line: str) -> str:
            stdin.write(line + "\n")
            stdin.flush()
            return stdout.readline().strip()

        watchdog = threading.Timer(_most_seconds(len(lines)), process.kill)
        watchdog.start()
        try:
            statistics = [ask(line) for line in lines]
            first = ask(f" {_SEPARATOR} ".join(["EVAL", *statistics]))
            return [float(first), *(float(stdout.readline()) for _ in lines)]
        except (OSError, ValueError) as error:  # it ended, or wrote no number
            errors.seek(0)
            raise FailedError(
                f"METEOR's Java program failed or did not end in time: {errors.read()[-500:]}"
            ) from error
        finally:
            watchdog.cancel()
            process.kill()


def _most_seconds(items: int) -> float:
    """Far above what is ever needed: it only ends a program that hangs."""
    return 300.0 + 0.5 * items


def meteor_command() -> list[str]:
    """The command line that starts the program; raises as `java_command`."""
    java, folder = java_command("METEOR", (_JAR, _PARAPHRASES))
    return [*java, "-Xmx2G", "-jar", str(folder / _JAR), *_OPTIONS]


def java_command(metric: str, files: Sequence[str]) -> tuple[list[str], Path]:
    """The start of a command line that runs Java, and the folder of `pycocoevalcap`.

    Raises:
        MissingToolError: Java, the package or one of its files is absent; all are named at once.
    """
    missing, remedies = [], []
    java = shutil.which("java")
    if java is None:
        missing.append("no `java` on the PATH")
        remedies.append("install a Java runtime (Debian: apt-get install default-jre-headless)")
    spec = importlib.util.find_spec("pycocoevalcap")
    folder = Path(next(iter((spec and spec.submodule_search_locations) or ()), ""))
    if spec is None:
        missing.append("no package pycocoevalcap")
        remedies.append("pip install 'qvft[java]' (in a clone: pip install -e '.[java]')")
    absent = [name for name in files if spec and not (folder / name).is_file()]
    if absent:
        missing.append(f"{', '.join(absent)} not in {folder}")
        remedies.append("pip install --force-reinstall 'qvft[java]'")
    if missing or java is None:
        raise MissingToolError(
            f"{metric} cannot be computed: {', '.join(missing)}",
            expected="the official program, which runs on Java",
            do=f"{'; '.join(remedies)}; or leave {metric} out",
        )
    return [java, *_LOCALE], folder
