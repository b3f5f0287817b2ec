"""coco_captions and karpathy beyond what their folders in data_formats show."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.errors import DataError

FORMATS = Path(__file__).resolve().parents[3] / "data_formats"
KARPATHY = str(FORMATS / "karpathy" / "dataset_coco.json")


def test_images_without_a_caption_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    folder = FORMATS / "coco_captions"
    with caplog.at_level(logging.WARNING, logger="qvft.data.formats.coco_captions"):
        logging.getLogger("qvft").propagate = True
        read_samples("coco_captions", f"{folder}/captions.json", images=f"{folder}/images")
    assert "1 of 3 images have no caption" in caplog.text


def test_coco_folder_in_its_official_layout(tmp_path: Path) -> None:
    source = FORMATS / "coco_captions"
    (tmp_path / "annotations").mkdir()
    shutil.copy(source / "captions.json", tmp_path / "annotations" / "captions_val2017.json")
    shutil.copytree(source / "images", tmp_path / "val2017")
    samples = read_samples("coco_captions", str(tmp_path), split="val2017")
    assert [one.image.path.parent.name for one in samples] == ["val2017", "val2017"]
    with pytest.raises(DataError, match="split `val`; expected one of the splits: val2017"):
        read_samples("coco_captions", str(tmp_path), split="val")


@pytest.mark.parametrize(
    ("split", "ids"),
    [
        ("train", ["21"]),
        ("restval", ["22"]),
        ("train+restval", ["21", "22"]),
        ("val", ["23"]),
        ("test", ["24"]),
    ],
)
def test_karpathy_split(split: str, ids: list[str]) -> None:
    assert [one.id for one in read_samples("karpathy", KARPATHY, split=split)] == ids


@pytest.mark.parametrize("split", [None, "valid", "train+rest"])
def test_karpathy_split_that_is_not_there(split: str | None) -> None:
    with pytest.raises(DataError, match="splits: restval, test, train, val"):
        read_samples("karpathy", KARPATHY, split=split)


def test_flickr_has_neither_filepath_nor_cocoid(tmp_path: Path) -> None:
    row = {"imgid": 0, "filename": "1.jpg", "split": "test", "sentences": [{"raw": "A dog."}]}
    (tmp_path / "flickr.json").write_text(json.dumps({"images": [row]}))
    (sample,) = read_samples("karpathy", str(tmp_path / "flickr.json"), split="test")
    assert (sample.id, sample.image.path, sample.captions) == (
        "0",
        tmp_path / "1.jpg",
        ("A dog.",),
    )


def test_a_missing_image_folder_is_an_error() -> None:
    with pytest.raises(DataError, match="no such folder; expected the folder of the images"):
        read_samples("karpathy", KARPATHY, split="test", images="/nowhere")
