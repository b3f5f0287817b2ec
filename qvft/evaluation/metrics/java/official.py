"""Finds Java and the jars of the official evaluators, which are never downloaded.

The jars are those of the package `pycocoevalcap`, which is looked up but never imported.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from qvft.errors import DataError, MissingToolError
from qvft.evaluation.metrics.tokenize import tokenize
from qvft.evaluation.unicode_letters import composed

# Numbers are read and written with a full stop, and text as UTF-8, whatever the user's locale.
LOCALE = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")


def java_command(metric: str, package_files: tuple[str, ...], *, do: str) -> tuple[list[str], Path]:
    """The start of a command line that runs Java, and the folder of `pycocoevalcap`.

    Args:
        package_files: what must be there, relative to the package's folder; may hold `*`.
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
    locations = map(Path, (spec and spec.submodule_search_locations) or ())
    folder = next((path for path in locations if path.is_dir()), None)
    if folder is None:
        missing.append("no package pycocoevalcap")
        remedies.append("pip install 'qvft[java]' (in a clone: pip install -e '.[java]')")
    absent = [name for name in package_files if folder and not any(folder.glob(name))]
    if absent:
        missing.append(f"{', '.join(absent)} not in {folder}")
        remedies.append(do)
    if missing or java is None or folder is None:
        raise MissingToolError(
            f"{metric} cannot be computed: {', '.join(missing)}",
            expected="the official program, which runs on Java",
            do=f"{'; '.join(remedies)}; or leave {metric} out",
        )
    return [java, *LOCALE], folder


def tokenized(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> dict[str, list[str]]:
    """The references and then the prediction of each id, as PTB tokens separated by blanks.

    Raises:
        DataError: a predicted id has no references.
    """
    without = [key for key in predictions if not references.get(key)]
    if without:
        raise DataError(
            f"no references for {without[0]!r}", expected="references for every predicted id"
        )
    return {
        key: [" ".join(tokenize(composed(text))) for text in (*references[key], prediction)]
        for key, prediction in predictions.items()
    }
