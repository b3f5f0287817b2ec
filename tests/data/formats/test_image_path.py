"""Image names as Windows and label tools write them mean the same file in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from qvft.data.formats import read_samples
from qvft.data.formats.path_guard import image_path
from qvft.errors import DataError

WAYS = {
    "plain": "img/a b.png",
    "windows": "img\\a b.png",
    "percent": "img/a%20b.png",
    "windows and percent": "img\\a%20b.png",
    "label studio": "/data/local-files/?d=img%2Fa%20b.png",
    "label studio's address": "http://localhost:8080/data/local-files/?d=img/a%20b.png",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with one image in a folder below it, both names with what needs care."""
    (tmp_path / "img").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "img" / "a b.png")
    return tmp_path


def jsonl(home: Path, written: str) -> tuple[str, str]:
    (home / "d.jsonl").write_text(json.dumps({"image": written, "caption": "c"}))
    return "jsonl", "d.jsonl"


def coco(home: Path, written: str) -> tuple[str, str]:
    content = {
        "images": [{"id": 1, "file_name": written}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "c"}],
    }
    (home / "d.json").write_text(json.dumps(content))
    return "coco_captions", "d.json"


def karpathy(home: Path, written: str) -> tuple[str, str]:
    row = {"imgid": 1, "split": "x", "filename": written, "sentences": [{"raw": "c"}]}
    (home / "d.json").write_text(json.dumps({"images": [row]}))
    return "karpathy", "d.json"


def pathvqa(home: Path, written: str) -> tuple[str, str]:
    row = {"image": written, "question": "q?", "answer": "a"}
    (home / "d.jsonl").write_text(json.dumps(row))
    return "pathvqa", "d.jsonl"


def slake(home: Path, written: str) -> tuple[str, str]:
    row = {
        "qid": 1, "q_lang": "en", "img_name": written, "question": "q?", "answer": "a",
        "answer_type": "OPEN", "content_type": "x", "location": "x", "modality": "x",
    }  # fmt: skip
    (home / "d.json").write_text(json.dumps([row]))
    return "slake", "d.json"


def vqa_rad(home: Path, written: str) -> tuple[str, str]:
    row = {
        "qid": 1, "phrase_type": "freeform", "image_name": written, "image_organ": "x",
        "question": "q?", "question_type": "x", "answer_type": "OPEN", "answer": "a",
    }  # fmt: skip
    (home / "d.json").write_text(json.dumps([row]))
    return "vqa_rad", "d.json"


def parquet(home: Path, written: str) -> tuple[str, str]:
    pq.write_table(pa.table({"image": [written], "text": ["c"]}), home / "d.parquet")
    return "hf", "d.parquet"


FORMATS = [jsonl, coco, karpathy, pathvqa, slake, vqa_rad, parquet]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_finds_the_image_however_its_name_is_written(
    write: Callable[[Path, str], tuple[str, str]], way: str, home: Path, datasets_cache: Path
) -> None:
    format, name = write(home, WAYS[way])
    named = {} if format == "hf" else {"images": str(home)}
    split = {"karpathy": "x", "vqa_rad": "train"}.get(format)
    (sample,) = read_samples(format, str(home / name), split=split, **named)
    assert Path(sample.image.name) == home / "img" / "a b.png"


def test_a_name_that_is_there_as_it_stands_wins(tmp_path: Path) -> None:
    for name in ("100%25.png", "100%.png", "a\\b.png"):
        (tmp_path / name).touch()
    assert image_path(tmp_path, "100%25.png").name == "100%25.png"
    assert image_path(tmp_path, "a\\b.png") == tmp_path / "a\\b.png"


def test_of_an_image_that_is_not_there_the_path_as_written_is_named(tmp_path: Path) -> None:
    assert image_path(tmp_path, "a%20b.png") == tmp_path / "a%20b.png"
    assert image_path(tmp_path, "x\\y.png") == tmp_path / "x" / "y.png"


@pytest.mark.parametrize("written", ["%2e%2e/out.png", "/data/local-files/?d=../out.png"])
def test_an_encoded_path_leads_out_of_the_folder_as_little_as_any(
    written: str, tmp_path: Path
) -> None:
    (tmp_path / "out.png").touch()
    home = tmp_path / "home"
    home.mkdir()
    (home / "d.jsonl").write_text(json.dumps({"image": written, "caption": "c"}))
    with pytest.raises(DataError, match="lies outside"):
        read_samples("jsonl", str(home / "d.jsonl"), allow_paths_outside_root=False)


def test_a_url_is_refused_by_every_format_alike(home: Path) -> None:
    coco(home, "https://example.org/a.png")
    with pytest.raises(DataError, match="`file_name` is a URL; .*; download it"):
        read_samples("coco_captions", str(home / "d.json"))


def test_the_folder_is_named_where_the_path_has_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonl(home, "../out.png")
    monkeypatch.chdir(home)
    with pytest.raises(DataError) as caught:
        read_samples("jsonl", "d.jsonl", allow_paths_outside_root=False)
    assert f"lies outside {home}; expected" in str(caught.value)
