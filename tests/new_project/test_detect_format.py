"""Every format's sample is detected as that format; several files are told from splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.data.formats import FORMATS
from qvft.errors import DataError
from qvft.new_project.detect_format import Found, detect, role
from qvft.new_project.read_data import read_found

FOLDERS = Path(__file__).resolve().parents[2] / "data_formats"


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"drawn"}))
def test_the_sample_of_a_format_is_detected_and_read(name: str) -> None:
    folder = FOLDERS / name
    given = json.loads((folder / "read.json").read_text())["good"]
    found = detect((folder / given["path"]).resolve())
    assert found.format == name
    samples = [sample for part in read_found(found, {}).values() for sample in part]
    expected = json.loads((folder / "expected.json").read_text())
    assert {one["id"] for one in expected} <= {one.id for one in samples}


def test_files_with_names_of_splits_are_splits(tmp_path: Path) -> None:
    for name in ("train.csv", "validation.csv", "notes.csv"):
        (tmp_path / name).write_text("image,caption\n")
    assert detect(tmp_path) == Found("csv", tmp_path, {"train": "train", "val": "validation"})


def test_other_files_are_not_guessed_among(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("image,caption\n")
    with pytest.raises(DataError, match="several files of texts: a.csv, b.csv"):
        detect(tmp_path)


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("image\tcaption\n")
    (tmp_path / "images").mkdir()
    assert detect(tmp_path) == Found("csv", tmp_path / "rows.tsv")


def test_an_empty_folder_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no texts and no class folders"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("split", "expected"),
    [("train2017", "train"), ("Validation", "val"), ("testing", "test"), ("trainer", None)],
)
def test_a_split_has_a_role(split: str, expected: str | None) -> None:
    assert role(split) == expected


def test_a_given_format_counts_with_the_splits_detected_for_it(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"image": "a.png", "caption": "x"}\n')
    (tmp_path / "test.jsonl").write_text('{"image": "b.png", "caption": "x"}\n')
    splits = {"train": "train", "test": "test"}
    assert detect(tmp_path, "jsonl") == detect(tmp_path) == Found("jsonl", tmp_path, splits)
    assert detect(tmp_path, "llava") == Found("llava", tmp_path)


def test_class_folders_with_a_table_beside_them_are_read_if_asked(tmp_path: Path) -> None:
    for name in ("train/cat", "test/cat"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "labels.csv").write_text("image,caption\n")
    splits = {"train": "train", "test": "test"}
    assert detect(tmp_path).format == "csv"
    assert detect(tmp_path, "class_folders") == Found("class_folders", tmp_path, splits)
