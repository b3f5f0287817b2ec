"""What docs/alignment.md quotes runs as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from qvft.predict import main as predict
from qvft.train import main

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "alignment.md"


def test_the_example_prints_a_class_an_image(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    blocks = re.findall(r"```py\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert len(blocks) == 1
    run = tmp_path / "runs" / "coco_align"
    steps = ["objectives.itc=0.5", "train.max_steps=1", "train.save_steps=null"]
    assert main([str(recipe_file), f"run.dir={run}", *steps]) == 0
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (40, 30), "teal").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(compile(blocks[0], str(DOCUMENT), "exec"), {})
    assert re.fullmatch(r"\['(cat|dog|car)', '(cat|dog|car)'\]\n", capsys.readouterr().out)


def test_the_command_writes_a_class_an_image(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(r"^qvft predict (.*)$", DOCUMENT.read_text(), flags=re.M)
    monkeypatch.chdir(tmp_path)
    steps = ["objectives.itc=0.5", "train.max_steps=1", "train.save_steps=null"]
    assert main([str(recipe_file), "run.dir=runs/coco_align", *steps]) == 0
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (40, 30), "teal").save(tmp_path / "photos" / name)
    assert predict([*shlex.split(command), "--workers", "0"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "classes.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == ["photos/a.jpg", "photos/b.jpg"]
    assert all(list(row["scores"]) == ["cat", "dog", "car"] for row in rows)
