"""Data in memory, and a recipe that trains on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qvft


@pytest.fixture(scope="session")
def rows(shapes: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of `shapes` by split, their image paths absolute."""
    found = {}
    for split in ("train", "test"):
        lines = (shapes / f"{split}.jsonl").read_text().splitlines()
        read = [json.loads(line) for line in lines]
        found[split] = [{**row, "image": str(shapes / row["image"])} for row in read]
    return found


@pytest.fixture
def recipe(recipe_file: Path, tmp_path: Path) -> qvft.Recipe:
    """The recipe of `tiny_run` with two steps and a run folder of its own."""
    changes = {"train.max_steps": 2, "run.dir": tmp_path / "run"}
    return qvft.Recipe.load(recipe_file, **changes)
