"""Texts of a predictions file, and the rows they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import DataError
from qvft.evaluation.pairs.prediction_texts import texts_of_file


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    lines = [
        {"id": "a", "image": "a.png", "captions": ["x"]},
        {"image": "b.png", "questions": [{"id": "q1", "question": "What?", "answer": "cat"}]},
    ]
    return evaluation_rows(read_samples("jsonl", str(written(tmp_path / "data.jsonl", *lines))))


def written(path: Path, *lines: dict) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_lines_are_found_by_id_or_by_image_and_question(tmp_path: Path, rows, caplog) -> None:
    file = written(
        tmp_path / "texts.jsonl",
        {"id": "q1", "image": "elsewhere.png", "question": "What?", "texts": ["cat", "dog"]},
        {"image": "a.png", "text": "y"},
        {"image": str(tmp_path / "b.png"), "question": "what ?", "prediction": "bird"},
        {"image": "a.png", "question": "Not asked?", "text": "z"},
        {"image": "a.png", "error": "no such file"},
        {"image": "./a.png", "texts": ["z"]},
    )
    assert texts_of_file(file, rows) == {"q1": ["cat", "dog", "bird"], "a": ["y", "z"]}
    assert "belong to no row of the data" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": "a.png"}, r"texts\.jsonl:1: no `texts`"),
        ({"image": "a.png", "texts": "y"}, r"texts\.jsonl:1: `texts` is a string"),
        ({"image": "a.png", "texts": [3]}, r"texts\.jsonl:1: `texts` is a number"),
        ({"texts": ["y"]}, r"texts\.jsonl:1: `image` is missing"),
        ({"image": "a.png", "question": "Not asked?", "text": "y"}, "no line belongs to a row"),
    ],
)
def test_broken_lines_are_refused(line: dict, message: str, tmp_path: Path, rows) -> None:
    with pytest.raises(DataError, match=message):
        texts_of_file(written(tmp_path / "texts.jsonl", line), rows)
