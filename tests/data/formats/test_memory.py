"""Rows that a Python caller holds become the samples that a file of them would give."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from qvft.data.formats import read_samples
from qvft.data.formats.memory import samples_in_memory
from qvft.data.images.decoding import decode
from qvft.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"image": "a.png", "id": "A", "captions": ["red", "very red"], "meta": {"organ": "eye"}},
    {"image": "b.png", "question": "Red?", "answer": "no", "id": "q1"},
    {"image": "a.png", "question": "Red?", "answers": ["yes", "yes"]},
    {"image": "b.png", "caption": "green"},
]
COLOURS = {"a.png": (250, 0, 0), "b.png": (0, 250, 0)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which holds the images and the rows as a file."""
    for name, colour in COLOURS.items():
        Image.new("RGB", (6, 4), colour).save(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dicts_are_read_as_lines_of_a_file_are(folder: Path) -> None:
    assert samples_in_memory(ROWS) == read_samples("jsonl", "rows.jsonl")
    assert samples_in_memory(iter(ROWS)) == samples_in_memory(ROWS)


@pytest.mark.parametrize("kind", ["pillow", "array", "bytes", "dict"])
def test_images_in_memory_are_merged_and_named_by_row(kind: str, folder: Path) -> None:
    files = {name: Path(name).read_bytes() for name in COLOURS}
    opened = {name: Image.open(name) for name in COLOURS}
    given = {
        "pillow": opened.__getitem__,
        "array": {name: np.asarray(image) for name, image in opened.items()}.__getitem__,
        "bytes": lambda name: bytes(bytearray(files[name])),  # equal, not the same object
        "dict": lambda name: {"bytes": files[name], "path": None},
    }[kind]
    samples = samples_in_memory(
        [{**row, "image": given(row["image"])} for row in ROWS], where="train"
    )
    named = samples_in_memory(ROWS)
    assert [s.captions for s in samples] == [s.captions for s in named]
    assert [len(s.questions) for s in samples] == [1, 1]
    assert [s.image.name for s in samples] == ["train, row 0", "train, row 1"]
    pixels = [decode(s.image).getpixel((0, 0)) for s in samples]
    assert pixels == list(COLOURS.values())


def test_images_that_are_made_one_by_one_stay_apart() -> None:
    made = ({"image": np.full((4, 4), n, np.uint8), "caption": str(n)} for n in range(20))
    samples = samples_in_memory(made)
    assert [decode(s.image).getpixel((0, 0))[0] for s in samples] == list(range(20))


def test_columns_name_the_fields_of_dicts(folder: Path) -> None:
    rows = [{"picture": "a.png", "said": "red", "caption": "not this", "split": 3}]
    (sample,) = samples_in_memory(rows, columns={"image": "picture", "caption": "said"})
    assert (sample.image.name, sample.captions) == ("a.png", ("red",))
    with pytest.raises(DataError, match=r"columns\.image"):
        samples_in_memory(rows, columns={"image": "photo"})


def test_a_dataset_with_the_fields_of_the_jsonl_is_read_whole(folder: Path) -> None:
    rows = [
        {"image": "a.png", "captions": ["red"], "questions": [{"question": "?", "answer": "x"}]},
        {"image": "b.png", "captions": ["green"], "questions": []},
    ]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    samples = samples_in_memory(table)
    assert [s.captions for s in samples] == [("red",), ("green",)]
    assert [[q.answers for q in s.questions] for s in samples] == [[("x",)], []]
    assert [decode(s.image).size for s in samples] == [(6, 4)] * 2


def test_a_dataset_keeps_its_images_where_they_are(folder: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(stream, "PNG")
    table = datasets.Dataset.from_list(
        [{"image": {"bytes": stream.getvalue(), "path": None}, "caption": c} for c in ("x", "y")],
        features=datasets.Features(image=datasets.Image(), caption=datasets.Value("string")),
    )
    (sample,) = samples_in_memory(table.with_format("numpy"))
    assert sample.captions == ("x", "y")  # equal bytes are one image
    assert decode(sample.image).size == (6, 4)


@pytest.mark.parametrize(
    ("rows", "given"),
    [
        (datasets.DatasetDict({"train": datasets.Dataset.from_list([{"a": 1}])}), "splits"),
        (datasets.Dataset.from_list([{"a": 1}]).to_iterable_dataset(), "IterableDataset"),
        (datasets.Dataset.from_list([{"caption": "x"}]), "image"),
        ([{"image": "a.png", "caption": "x", "id": "1"}, {"image": "b.png", "id": "1"}], "1"),
        ([{"image": np.zeros((3, 4, 5), np.uint8), "caption": "x"}], "shape"),
        (7, "int"),
    ],
    ids=["dict", "iterable", "no_image", "same_id", "shape", "number"],
)
def test_what_is_no_data_is_refused(rows: Any, given: str) -> None:
    with pytest.raises(DataError, match=given):
        samples_in_memory(rows)
