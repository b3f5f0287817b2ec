"""Prints pyproject.toml's dependencies without their upper bounds, for `make test-newest`.

`python tests/newest_requirements.py torch==2.13.0` prints that line in place of torch's own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
EXTRAS = ("quickstart", "evaluate", "plots", "trl", "dicom", "excel", "heic", "dev")


def newest_requirements(torch: str) -> Iterator[str]:
    """Each dependency of the package and of `EXTRAS`, bounded from below alone."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]:
        if not line.startswith("qvft["):
            yield torch if line.startswith("torch>") else re.sub(r",<[\d.]+", "", line)


if __name__ == "__main__":
    print(*newest_requirements(sys.argv[1]), sep="\n")
