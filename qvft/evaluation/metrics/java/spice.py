"""SPICE as the coco-caption toolkit computes it: by the official Java program.

It parses every caption with Stanford CoreNLP 3.6.0, whose two jars (a download of about 384 MB)
are not part of the package that holds the program.

Source: Anderson et al. 2016, "SPICE"; github.com/salaniz/pycocoevalcap 1.2, spice/spice.py.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qvft.errors import FailedError
from qvft.evaluation.metrics.java.official import java_command, tokenized

DEFINITION = (
    "SPICE/1.0: the official jar, on PTB tokens of composed text; F-score of scene graphs, "
    "from 0 to 1."
)

_JAR = "spice/spice-1.0.jar"
_PARSER = (
    "spice/lib/stanford-corenlp-3.6.0.jar",
    "spice/lib/stanford-corenlp-3.6.0-models.jar",
)
_GET_PARSER = (
    "put both jars of stanford-corenlp-full-2015-12-09.zip (about 384 MB, "
    "nlp.stanford.edu/software) there, or run pycocoevalcap's spice/get_stanford_models.py"
)
# The program's libraries look into classes that Java keeps closed from release 9 on; Java 8 does
# not know the option, and does not read the variable that carries it.
_OPENED = " ".join(
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "math", "net", "nio", "text", "util", "util.concurrent")
)
# Far above what is ever needed: it only ends a program that hangs.
_SECONDS_TO_START = 900.0
_SECONDS_AN_ITEM = 5.0


def spice(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[float, dict[str, float]]:
    """SPICE of raw captions, tokenised here: the mean over items, and each item's F-score.

    Raises:
        DataError: a predicted id has no references.
        MissingToolError: Java, the jar or the parser's jars are not installed.
        FailedError: the program broke off or did not end in time.
    """
    if not predictions:
        return 0.0, {}
    items: list[dict[str, object]] = [
        {"image_id": key, "test": prediction, "refs": captions}
        for key, (*captions, prediction) in tokenized(references, predictions).items()
    ]
    found = {row["image_id"]: row["scores"]["All"]["f"] for row in _run(items)}
    scores = {key: math.nan if found[key] is None else float(found[key]) for key in predictions}
    return sum(scores.values()) / len(scores), scores


def tool() -> tuple[list[str], Path]:
    """The start of the program's command line, and the folder that it lies in.

    Raises:
        MissingToolError: Java, the jar or the parser's jars are not installed.
    """
    return java_command("SPICE", (_JAR, *_PARSER), do=_GET_PARSER)


def _run(items: list[dict[str, object]]) -> list[dict[str, Any]]:
    """The program's own JSON for these items."""
    java, folder = tool()
    with tempfile.TemporaryDirectory(prefix="qvft-spice-") as name:
        work = Path(name)
        (work / "cache").mkdir()
        (work / "in.json").write_text(json.dumps(items), encoding="utf-8")
        command = [*java, "-Xmx8G", "-jar", str(folder / _JAR), str(work / "in.json")]
        command += ["-cache", str(work / "cache"), "-out", str(work / "out.json")]
        try:
            run = subprocess.run(
                [*command, "-subset", "-silent"],
                cwd=folder / "spice",
                env=os.environ | {"JDK_JAVA_OPTIONS": _OPENED},
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_SECONDS_TO_START + _SECONDS_AN_ITEM * len(items),
            )
        except subprocess.TimeoutExpired as error:
            raise FailedError("SPICE's Java program did not end in time") from error
        if run.returncode != 0 or not (work / "out.json").is_file():
            raise FailedError(
                f"SPICE's Java program failed with status {run.returncode}: "
                f"{run.stderr.strip()[-500:]}"
            )
        return json.loads((work / "out.json").read_text(encoding="utf-8"))
