"""METEOR and SPICE by the official Java programs, as the coco-caption toolkit calls them.

Optional: the jars are those of the package `pycocoevalcap`, which is looked up but never imported,
and nothing is downloaded.

Source: Denkowski and Lavie 2014, "Meteor Universal"; Anderson et al. 2016, "SPICE";
github.com/salaniz/pycocoevalcap 1.2, meteor/meteor.py and spice/spice.py (options and protocols).
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.errors import DataError, FailedError, MissingToolError
from qvft.evaluation.metrics.tokenize import tokenize
from qvft.evaluation.metrics.unicode_letters import composed

References = Mapping[str, Sequence[str]]
Scored = tuple[float, dict[str, float]]

# Numbers are read and written with a full stop, and text as UTF-8, whatever the user's locale.
_LOCALE = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")

_METEOR_JAR = "meteor/meteor-1.5.jar"
_METEOR_FILES = (_METEOR_JAR, "meteor/data/paraphrase-en.gz")
_METEOR_OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
_SEPARATOR = "|||"

_SPICE_JAR = "spice/spice-1.0.jar"
_SPICE_FILES = (
    _SPICE_JAR,
    "spice/lib/stanford-corenlp-3.6.0.jar",
    "spice/lib/stanford-corenlp-3.6.0-models.jar",
)
# SPICE's libraries look into classes that Java keeps closed from release 9 on; Java 8 does not know
# the option, and does not read the variable that carries it.
_OPENED = " ".join(
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "math", "net", "nio", "text", "util", "util.concurrent")
)


@dataclass(frozen=True)
class JavaMetric:
    """A metric of raw captions that a Java program computes.

    Attributes:
        score: value of all items, and of each, from references and predictions by id.
        definition: name, version and a sentence.
        require_installed: raises `MissingToolError` unless the program can run.
    """

    score: Callable[[References, Mapping[str, str]], Scored]
    definition: str
    require_installed: Callable[[], object]


def meteor(references: References, predictions: Mapping[str, str]) -> Scored:
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
    lines = [
        f" {_SEPARATOR} ".join(["SCORE", *(text.replace(_SEPARATOR, "") for text in texts)])
        for texts in _tokenised(references, predictions).values()
    ]
    *scores, value = _ask_meteor(lines)
    return value, dict(zip(predictions, scores, strict=True))


def _meteor_command() -> list[str]:
    java, folder = java_command(
        "METEOR", _METEOR_FILES, do="pip install --force-reinstall 'qvft[java]'"
    )
    return [*java, "-Xmx2G", "-jar", str(folder / _METEOR_JAR), *_METEOR_OPTIONS]


def _ask_meteor(lines: Sequence[str]) -> list[float]:
    """Scores of lines `SCORE ||| reference ||| ... ||| prediction`, and of all of them."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            _meteor_command(),
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


def spice(references: References, predictions: Mapping[str, str]) -> Scored:
    """SPICE of raw captions, composed and tokenised here: the mean over items, and each F-score.

    It parses every caption with Stanford CoreNLP 3.6.0, whose two jars are not part of the package.

    Raises:
        DataError: a predicted id has no references.
        MissingToolError: Java, the jar or the parser's jars are not installed.
        FailedError: the program broke off or did not end in time.
    """
    if not predictions:
        return 0.0, {}
    items = [
        {"image_id": key, "test": prediction, "refs": captions}
        for key, (*captions, prediction) in _tokenised(references, predictions).items()
    ]
    found = {row["image_id"]: row["scores"]["All"]["f"] for row in _ask_spice(items)}
    scores = {key: math.nan if found[key] is None else float(found[key]) for key in predictions}
    return sum(scores.values()) / len(scores), scores


def _spice_command() -> tuple[list[str], Path]:
    """The start of SPICE's command line, and the folder of pycocoevalcap."""
    return java_command(
        "SPICE",
        _SPICE_FILES,
        do="put both jars of stanford-corenlp-full-2015-12-09.zip (about 384 MB, "
        "nlp.stanford.edu/software) there, or run pycocoevalcap's spice/get_stanford_models.py",
    )


def _ask_spice(items: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
    """The program's own JSON for these items."""
    java, folder = _spice_command()
    with tempfile.TemporaryDirectory(prefix="qvft-spice-") as name:
        given, found, cache = (Path(name) / part for part in ("in.json", "out.json", "cache"))
        cache.mkdir()
        given.write_text(json.dumps(items), encoding="utf-8")
        command = [*java, "-Xmx8G", "-jar", str(folder / _SPICE_JAR), str(given)]
        command += ["-cache", str(cache), "-out", str(found), "-subset", "-silent"]
        try:
            run = subprocess.run(
                command,
                cwd=folder / "spice",
                env=os.environ | {"JDK_JAVA_OPTIONS": _OPENED},
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_most_seconds(len(items)),
            )
        except subprocess.TimeoutExpired as error:
            raise FailedError("SPICE's Java program did not end in time") from error
        if run.returncode != 0 or not found.is_file():
            message = run.stderr.strip()[-500:]
            raise FailedError(
                f"SPICE's Java program failed with status {run.returncode}: {message}"
            )
        return json.loads(found.read_text(encoding="utf-8"))


def _most_seconds(items: int) -> float:
    """Far above what is ever needed: it only ends a program that hangs."""
    return 900.0 + 5.0 * items


def java_command(metric: str, files: Sequence[str], *, do: str) -> tuple[list[str], Path]:
    """The start of a command line that runs Java, and the folder of `pycocoevalcap`.

    Args:
        files: what must be in that folder.
        do: what to do where one of them is missing although the package is installed.

    Raises:
        MissingToolError: Java, the package or one of the files is absent; all are named at once.
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
        remedies.append(do)
    if missing or java is None:
        raise MissingToolError(
            f"{metric} cannot be computed: {', '.join(missing)}",
            expected="the official program, which runs on Java",
            do=f"{'; '.join(remedies)}; or leave {metric} out",
        )
    return [java, *_LOCALE], folder


def _tokenised(references: References, predictions: Mapping[str, str]) -> dict[str, list[str]]:
    """The references and then the prediction of each id, as PTB tokens separated by blanks."""
    without = [key for key in predictions if not references.get(key)]
    if without:
        raise DataError(
            f"no references for {without[0]!r}", expected="references for every predicted id"
        )
    return {
        key: [" ".join(tokenize(composed(text))) for text in (*references[key], prediction)]
        for key, prediction in predictions.items()
    }


BY_JAVA = {
    "METEOR": JavaMetric(
        meteor,
        "METEOR/1.5: the official jar with `-l en -norm`, on PTB tokens of composed text, from 0 "
        "to 1.",
        _meteor_command,
    ),
    "SPICE": JavaMetric(
        spice,
        "SPICE/1.0: the official jar, on PTB tokens of composed text; F-score of scene graphs, "
        "from 0 to 1.",
        _spice_command,
    ),
}
