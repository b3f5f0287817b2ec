"""Every dependency is bounded from both ends, and the pinned versions lie within the bounds."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)
import tomllib

PROJECT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"^([\w.-]+)(?:>=[\w.]+,<)?==?([\w.]+)", re.MULTILINE)


def declared() -> list[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return [line for line in lines if not line.startswith("qvft[")]  # extras of one another


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@pytest.mark.parametrize("line", declared())
def test_a_dependency_is_bounded_at_both_ends(line: str) -> None:
    assert re.search(r"==|>=.*,<\d", line), line


@pytest.mark.parametrize("line", [line for line in declared() if ",<" in line])
def test_the_pinned_version_lies_within_the_bounds(line: str) -> None:
    pins = dict(PINNED.findall((PROJECT / "constraints.txt").read_text()))
    name, lowest, bound = re.match(r"([\w.-]+)>=([\d.]+),<([\d.]+)", line).groups()
    if name not in pins:
        pytest.skip(f"{name} is not pinned: it belongs to an extra that the tests do without")
    assert numbers(lowest) <= numbers(pins[name]) < numbers(bound)
