"""Thumbs become pairs that the custom JSONL reads, and trl's unpaired rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from qvft.data.formats import read_samples
from qvft.demo_page.thumbs import Thumbs
from qvft.errors import DataError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "uploads" / "a photo.PNG"
    path.parent.mkdir()
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def pairs_of(folder: Path) -> list[tuple[str | None, str, str]]:
    samples = read_samples("jsonl", str(folder / "pairs.jsonl"))
    return [(one.question, one.chosen, one.rejected) for s in samples for one in s.pairs]


def test_texts_of_one_question_are_paired_good_against_bad(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    thumbs = Thumbs(out)
    assert not out.exists()
    thumbs.give(image, "Which colour?", "red", up=True)
    assert (out / "pairs.jsonl").read_text() == ""  # a single thumb makes no pair
    thumbs.give(image, "Which colour?", "blue", up=False)
    thumbs.give(image, None, "a square", up=False)
    thumbs.give(image, None, "a red square", up=True)
    image.unlink()
    expected = [("Which colour?", "red", "blue"), (None, "a red square", "a square")]
    assert pairs_of(out) == expected
    (kept,) = (out / "images").iterdir()
    rows = [json.loads(line) for line in (out / "thumbs.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "image": f"images/{kept.name}",
        "prompt": "Which colour?",
        "completion": "red",
        "label": True,
    }
    assert len(rows) == 4


def test_the_last_thumb_of_a_text_counts_also_in_a_later_demo(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Thumbs(out).give(image, None, "one", up=True)
    Thumbs(out).give(image, None, "two", up=False)
    assert pairs_of(out) == [(None, "one", "two")]
    again = Thumbs(out)
    again.give(image, None, "one", up=False)
    again.give(image, None, "two", up=True)
    assert pairs_of(out) == [(None, "two", "one")]


def test_another_file_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thumbs.jsonl").write_text('{"image": "a.png", "caption": "x"}\n')
    with pytest.raises(DataError, match="--out"):
        Thumbs(tmp_path)
