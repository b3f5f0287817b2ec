"""The Dockerfile copies what exists and is not ignored, from a pinned image, and is not root."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LINES = (PROJECT / "Dockerfile").read_text().splitlines()


def arguments(instruction: str) -> list[list[str]]:
    return [line.split()[1:] for line in LINES if line.startswith(f"{instruction} ")]


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    rules = (PROJECT / ".dockerignore").read_text().splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [name for *names, _ in arguments("COPY") for name in names]
    assert copied and all((PROJECT / name).exists() for name in copied)
    assert all(any(fnmatch(name, rule) for rule in kept) for name in copied)


def test_the_base_image_is_pinned_and_the_process_is_not_root() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-[\w.-]+", base[0])
    assert arguments("USER")[-1][0] not in ("root", "0")
    after = "\n".join(LINES).split("\nUSER ")[-1]
    assert "RUN " not in after
