"""What `qvft embed` takes for images and for texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from qvft.data.embed_inputs import resolve_embed_inputs
from qvft.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image, and files that name it or hold texts."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "texts.txt").write_text("a circle\n\n  two stars \n")
    rows = {
        "data": [
            {"image": "a.png", "captions": ["one", "two"]},
            {"image": "a.png", "question": "?"},
        ],
        "texts": [{"text": "one"}, {"captions": ["two", "three"]}],
        "mixed": [{"text": "one"}, {"image": "a.png"}],
        "bad": [{"text": "one"}, {"text": 3}],
    }
    for name, content in rows.items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    return tmp_path


def test_images_come_once_and_captions_when_asked_for(folder: Path) -> None:
    images, texts = resolve_embed_inputs([str(folder / "data.jsonl"), str(folder / "a.png")])
    assert [image.name for image in images] == [str(folder / "a.png")] and texts == []
    assert resolve_embed_inputs([str(folder / "data.jsonl")], captions=True) == ([], ["one", "two"])


def test_texts_are_lines_and_rows_in_order(folder: Path) -> None:
    names = [str(folder / "texts.txt"), str(folder / "texts.jsonl")]
    expected = ["a circle", "two stars", "one", "two", "three"]
    assert resolve_embed_inputs(names) == ([], expected)


@pytest.mark.parametrize("names", [["texts.txt", "a.png"], ["mixed.jsonl"], ["bad.jsonl"]])
def test_what_is_neither_is_refused(folder: Path, names: list[str]) -> None:
    with pytest.raises(DataError):
        resolve_embed_inputs([str(folder / name) for name in names])
