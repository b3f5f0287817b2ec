"""qvft's own JSONL beyond what data_formats/jsonl shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.data.sample import Sample
from qvft.errors import DataError


def read(folder: Path, *rows: dict, **options) -> list[Sample]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_samples("jsonl", str(file), **options)


def test_lines_of_an_image_are_merged_in_the_order_of_first_appearance(tmp_path: Path) -> None:
    samples = read(
        tmp_path,
        {"image": "b.png", "caption": "one"},
        {"image": "a.png", "caption": "two"},
        {"image": "sub/../b.png", "caption": "three"},
    )
    assert [(one.image.path.name, one.captions) for one in samples] == [
        ("b.png", ("one", "three")),
        ("a.png", ("two",)),
    ]


def test_absolute_paths_and_an_image_folder_of_their_own(tmp_path: Path) -> None:
    here, there = read(
        tmp_path,
        {"image": "a.png", "caption": "x"},
        {"image": "/elsewhere/b.png", "caption": "x"},
        images=str(tmp_path / "pictures"),
    )
    assert here.image.path == tmp_path / "pictures" / "a.png"
    assert there.image.path == Path("/elsewhere/b.png")


@pytest.mark.parametrize(
    ("given", "text"), [(5, "5"), (-2, "-2"), (2.5, "2.5"), (True, "true"), (" yes ", "yes")]
)
def test_answers_become_text(tmp_path: Path, given, text: str) -> None:
    (sample,) = read(tmp_path, {"image": "a.png", "question": "?", "answers": [given, given]})
    assert sample.questions[0].answers == (text, text)


def test_the_id_of_a_question_line_is_the_questions(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, {"id": "q1", "image": "a.png", "question": "?", "answer": "x"})
    assert (sample.id, sample.questions[0].id) == ("a.png", "q1")


def test_the_id_of_a_caption_line_is_the_samples_and_the_first_counts(tmp_path: Path) -> None:
    (sample,) = read(
        tmp_path,
        {"id": "c1", "image": "a.png", "caption": "x"},
        {"id": "c2", "image": "a.png", "caption": "y"},
    )
    assert (sample.id, sample.captions) == ("c1", ("x", "y"))


def test_meta_of_a_question_becomes_text(tmp_path: Path) -> None:
    row = {"image": "a.png", "question": "?", "answer": "x", "meta": {"level": 3}}
    (sample,) = read(tmp_path, row)
    assert (sample.meta, sample.questions[0].meta) == ({}, {"level": "3"})


def test_a_folder_holds_one_file_a_split(tmp_path: Path) -> None:
    read(tmp_path, {"image": "a.png", "caption": "x"})
    assert len(read_samples("jsonl", str(tmp_path), split="rows")) == 1
    for split in ("test", None):
        with pytest.raises(DataError, match="expected one of the splits: rows"):
            read_samples("jsonl", str(tmp_path), split=split)


def test_messages_do_not_quote_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(
            tmp_path,
            {"id": "q", "image": "a.png", "question": "secret question", "answer": "secret"},
            {"id": "q", "image": "a.png", "question": "secret question", "answer": "secret"},
        )
    assert "secret" not in str(caught.value)


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"image": "a.png", "caption": "x"}\r\n\r\n'
    (tmp_path / "a.jsonl").write_bytes(content)
    assert read_samples("jsonl", str(tmp_path / "a.jsonl"))[0].captions == ("x",)


def test_a_file_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"image": "a.png", "caption": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 at byte"):
        read_samples("jsonl", str(tmp_path / "a.jsonl"))
