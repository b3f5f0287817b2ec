"""Hugging Face datasets from disk; the Hub is never asked."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qvft.data.formats import columns, read_samples
from qvft.data.images.decoding import check, decode
from qvft.errors import DataError, ImageError

pytestmark = pytest.mark.usefixtures("datasets_cache")


def png(colour: str) -> dict:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def table(**extra) -> dict:
    """Three questions about two images, as in PathVQA's parquet files."""
    return {
        "image": [png("red"), png("blue"), png("red")],
        "question": ["what is shown?", "is it blue?", "is it green?"],
        "answer": ["a red square", "yes", "no"],
        **extra,
    }


def dataset(rows: dict):
    import datasets

    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    dataset(table()).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    dataset(table()).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    return tmp_path


def test_rows_of_an_equal_image_are_one_sample(parquet: Path) -> None:
    first, second = read_samples("hf", str(parquet), split="train")
    assert [(one.id, one.text, one.answers) for one in first.questions] == [
        ("0", "what is shown?", ("a red square",)),
        ("2", "is it green?", ("no",)),
    ]
    assert [one.text for one in second.questions] == ["is it blue?"]


def test_images_decode_from_the_arrow_file_and_survive_pickling(parquet: Path) -> None:
    sources = [one.image for one in read_samples("hf", str(parquet), split="train")]
    assert [decode(source).getpixel((0, 0)) for source in sources] == [(255, 0, 0), (0, 0, 255)]
    check(pickle.loads(pickle.dumps(sources[1])))


def test_pathvqa_reads_parquet_and_tells_closed_from_open(parquet: Path) -> None:
    samples = read_samples("pathvqa", str(parquet), split="val")
    types = {one.text: one.meta["answer_type"] for s in samples for one in s.questions}
    assert types == {"what is shown?": "open", "is it blue?": "closed", "is it green?": "closed"}


def test_val_finds_validation_and_other_splits_are_listed(parquet: Path) -> None:
    assert len(read_samples("hf", str(parquet), split="val")) == 2
    for split in ("test", None):
        with pytest.raises(DataError, match="splits: train, validation"):
            read_samples("hf", str(parquet), split=split)


def test_a_single_parquet_file_needs_no_split(parquet: Path) -> None:
    file = parquet / "data" / "validation-00000-of-00001.parquet"
    assert len(read_samples("hf", str(file))) == 2
    assert len(read_samples("hf", str(file), split="validation")) == 2


def test_saved_datasets_are_read_with_their_splits_or_without(tmp_path: Path) -> None:
    import datasets

    dataset(table()).save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"dev": dataset(table())}).save_to_disk(tmp_path / "several")
    assert len(read_samples("hf", str(tmp_path / "one"))) == 2
    assert len(read_samples("hf", str(tmp_path / "several"))) == 2
    with pytest.raises(DataError, match="splits: dev"):
        read_samples("hf", str(tmp_path / "several"), split="train")


def test_columns_are_mapped(tmp_path: Path) -> None:
    import datasets

    rows = {"pic": [png("red")], "title": ["a lamp"], "sku": ["A-1"], "question": ["unused?"]}
    made = datasets.Dataset.from_dict(rows).cast_column("pic", datasets.Image())
    made.save_to_disk(tmp_path / "d")
    mapping = {"image": "pic", "caption": "title", "id": "sku"}
    (sample,) = read_samples("hf", str(tmp_path / "d"), columns=mapping)
    assert (sample.id, sample.captions, sample.questions) == ("A-1", ("a lamp",), ())


def test_a_column_of_paths_is_relative_to_the_folder(tmp_path: Path) -> None:
    import datasets

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = {"image": ["a.png"], "caption": [["one", "two"]]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "rows.parquet")
    (sample,) = read_samples("hf", str(tmp_path / "rows.parquet"))
    assert sample.captions == ("one", "two")
    check(sample.image)


def test_answers_of_objects_and_types_are_read(tmp_path: Path) -> None:
    answers = [[{"answer": "red", "answer_id": 1}, {"answer": "rose", "answer_id": 2}]] * 3
    rows = table(answers=answers, answer_type=["other"] * 3, question_id=[10, 11, 12])
    dataset(rows).save_to_disk(tmp_path / "d")
    first = read_samples("hf", str(tmp_path / "d"))[0].questions[1]
    assert (first.id, first.answers, first.meta) == (
        "12",
        ("red", "rose"),
        {"answer_type": "other"},
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": ["x", "", "y"]}, "row 1: `answer` is empty"),
        ({"answer": ["x", None, "y"]}, "row 1: `answer` is null"),
        ({"image": [png("red"), None, png("red")]}, "row 1: `image` is empty"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, change: dict, message: str) -> None:
    dataset(table(**change)).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=message):
        read_samples("hf", str(tmp_path / "d"))


def test_bytes_that_are_no_image_are_an_image_error(tmp_path: Path) -> None:
    images = [png("red"), {"bytes": b"nothing", "path": None}, png("red")]
    dataset(table(image=images)).save_to_disk(tmp_path / "d")
    sample = read_samples("hf", str(tmp_path / "d"))[1]
    with pytest.raises(ImageError, match="d, row 1: not an image"):
        decode(sample.image)


def test_a_column_that_cannot_be_images_is_named(tmp_path: Path) -> None:
    dataset(table(number=[1, 2, 3])).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match="column `number` is .*expected images"):
        read_samples("hf", str(tmp_path / "d"), columns={"image": "number"})


def test_a_file_that_only_claims_to_be_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="`datasets` cannot read it"):
        read_samples("hf", str(tmp_path / "rows.parquet"))


def test_a_hub_id_without_the_network_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*args, **options) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match="owner/name: not here, and the Hub gives no such dataset"):
        read_samples("hf", "owner/name", split="train")


def test_a_hub_id_also_calls_validation_val(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*args: Any, split: str, **options: Any) -> Any:
        if split != "validation":
            raise ValueError('Unknown split "val"')
        return dataset(table(caption=["a", "b", "c"]))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(read_samples("hf", "owner/name", split="val")) == 2  # images
    with pytest.raises(DataError, match="no such dataset"):
        read_samples("hf", "owner/name", split="test")


def test_unknown_keys_and_columns_name_the_nearest() -> None:
    with pytest.raises(DataError, match="unknown key `captoin`.*did you mean `caption`"):
        columns.resolve({"captoin": "text"}, ["image", "text"], where="d")
    with pytest.raises(DataError, match="names the column `txt`.*did you mean `text`"):
        columns.resolve({"caption": "txt"}, ["image", "text"], where="d")


@pytest.mark.parametrize(
    ("given", "present", "found"),
    [
        ({}, "img text", {"image": "img", "caption": "text"}),
        ({}, "image text captions", {"image": "image", "captions": "captions"}),
        (
            {},
            "image question answer answers id",
            {"image": "image", "question": "question", "answers": "answers", "id": "id"},
        ),
        (
            {"answer": "label"},
            "image text question answers label",
            {"image": "image", "question": "question", "answer": "label"},
        ),
        ({"id": "", "caption": "t"}, "image id t question", {"image": "image", "caption": "t"}),
    ],
)
def test_defaults_and_named_columns(given: dict, present: str, found: dict) -> None:
    assert columns.resolve(given, present.split(), where="d") == found


def test_images_without_a_row_are_counted_and_named(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    for name in ("train/a.png", "train/b.png", "train/below/c.jfif", "test/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    for split, name in (("train", "a.png"), ("test", "d.png")):
        row = {"file_name": name, "text": "a square"}
        (tmp_path / split / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    assert len(read_samples("hf", str(tmp_path), split="train")) == 1
    assert said.messages == [
        f"{tmp_path}: 2 of 4 images have no row in the metadata and are skipped, first train/b.png"
    ]
