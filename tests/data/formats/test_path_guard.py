"""Image paths outside their folder: logged once, refused of the Hub or where the recipe says so."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image

from qvft import train
from qvft.data.formats import FORMATS, hf, read_samples
from qvft.data.formats.path_guard import PathGuard
from qvft.errors import DataError

FOLDERS = Path(__file__).resolve().parents[3] / "data_formats"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder beside a secret picture, with links in and out."""
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    for place in (tmp_path / "secret.png", folder / "a.png", folder / "deep" / "b.png"):
        Image.new("RGB", (2, 2)).save(place)
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "in.png").symlink_to(folder / "a.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder


@pytest.mark.parametrize(
    "written", ["a.png", "deep/b.png", "deep/../a.png", "in.png", "absent.png", "up/data/a.png"]
)
def test_paths_that_end_inside_pass(root: Path, written: str) -> None:
    confined = PathGuard(root, allow_paths_outside_root=False)
    assert confined.file(root / written, where="x:1").path == root / written


@pytest.mark.parametrize(
    "written",
    [
        "../secret.png",
        "/etc/passwd",
        "out.png",
        "up/secret.png",
        "deep/../../secret.png",
        "..",
        "up",
    ],
)
def test_paths_that_lead_out_name_the_row_and_the_key(root: Path, written: str) -> None:
    with pytest.raises(
        DataError, match=r"^x:1: the image .* lies outside .*`allow_paths_outside_root: true`"
    ):
        PathGuard(root, allow_paths_outside_root=False).file(root / written, where="x:1")
    assert PathGuard(root, allow_paths_outside_root=True).file(root / written, where="x:1")


def test_a_folder_with_the_same_beginning_is_another(root: Path) -> None:
    with pytest.raises(DataError, match="lies outside"):
        PathGuard(root, allow_paths_outside_root=False).file(Path(f"{root}_other/a.png"), where="x")


def test_a_linked_image_folder_is_the_one_it_leads_to(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    link = root.parent / "link"
    assert PathGuard(link, allow_paths_outside_root=False).file(link / "a.png", where="x")


def test_by_default_paths_that_lead_out_are_read_and_the_first_is_logged(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "linked").symlink_to(root.parent / "store")
    for name in ("cat", "dog"):
        (root.parent / "store" / name).mkdir(parents=True)
        shutil.copy(root / "a.png", root.parent / "store" / name)
    with caplog.at_level(logging.INFO):
        assert len(read_samples("class_folders", str(root / "linked"))) == 2
        assert not caplog.messages
        (root / "own").mkdir()
        for name in ("cat", "dog"):
            (root / "own" / name).symlink_to(root.parent / "store" / name)
        assert len(read_samples("class_folders", str(root / "own"))) == 2
    (message,) = caplog.messages
    assert "lies outside" in message and "allow_paths_outside_root: false" in message


def test_a_zero_character_is_one_message(root: Path) -> None:
    for written in ("a\0b", "/data/local-files/?d=a%00b"):
        with pytest.raises(DataError, match="control character"):
            PathGuard(root).image(written, "image", where="x")


ROWS: dict[str, Any] = {
    "jsonl": [{"image": "../secret.png", "caption": "x"}],
    "coco_captions": {
        "images": [{"id": 1, "file_name": "../secret.png"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "x"}],
    },
    "karpathy": {
        "images": [
            {
                "split": "train",
                "cocoid": 1,
                "filename": "secret.png",
                "filepath": "..",
                "sentences": [{"raw": "x"}],
            }
        ]
    },
    "pathvqa": [{"image": "../secret.png", "question": "?", "answer": "x"}],
}


@pytest.mark.parametrize("format", sorted(ROWS))
def test_a_format_refuses_a_row_that_leads_out(format: str, root: Path) -> None:
    rows = ROWS[format]
    file = root / ("train.jsonl" if format == "jsonl" else "train.json")
    file.write_text("\n".join(map(json.dumps, rows)) if format == "jsonl" else json.dumps(rows))
    given = {"split": "train", "images": str(root)}
    with pytest.raises(DataError, match="lies outside"):
        read_samples(format, str(file), **given, allow_paths_outside_root=False)
    assert len(read_samples(format, str(file), **given)) == 1


@pytest.mark.parametrize(
    ("format", "file", "key"),
    [
        ("slake", "train.json", "img_name"),
        ("vqa_rad", "VQA_RAD Dataset Public.json", "image_name"),
        ("vqa_v2", "v2_OpenEnded_mscoco_train2014_questions.json", "image_id"),
    ],
)
def test_an_official_layout_refuses_a_row_that_leads_out(
    format: str, file: str, key: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(FOLDERS / format, tmp_path / format))
    content = json.loads((folder / file).read_text())
    rows = content["questions"] if format == "vqa_v2" else content
    for row in rows:
        row[key] = "../../../secret.png"
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match="lies outside"):
        read_samples(format, str(folder), split="train", allow_paths_outside_root=False)


def test_paths_in_a_table_stay_in_its_folder(root: Path, datasets_cache: Path) -> None:
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    secret = pa.array([{"bytes": None, "path": str(root.parent / "secret.png")}], image)
    pq.write_table(pa.table({"image": secret, "caption": ["x"]}), root / "rows.parquet")
    with pytest.raises(DataError, match="row 0: the image .* lies outside"):
        read_samples("hf", str(root / "rows.parquet"), allow_paths_outside_root=False)
    assert len(read_samples("hf", str(root / "rows.parquet"))) == 1


def test_paths_in_a_dataset_of_the_hub_are_confined(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"image": [{"bytes": None, "path": str(root / "a.png")}], "caption": ["x"]}
    dataset = Dataset.from_dict(rows)
    monkeypatch.setattr(hf, "load", lambda path, split: dataset)
    with pytest.raises(DataError, match="lies outside"):
        read_samples("hf", "somebody/dataset")
    assert len(read_samples("hf", "somebody/dataset", allow_paths_outside_root=True)) == 1


def test_a_csv_file_refuses_a_row_that_leads_out(root: Path) -> None:
    file = root / "t.csv"
    file.write_text("image,caption\na.png,x\n../secret.png,x\n")
    with pytest.raises(DataError, match=r"t.csv:3: the image .* lies outside"):
        read_samples("csv", str(file), allow_paths_outside_root=False)
    assert len(read_samples("csv", str(file))) == 2


def test_every_format_of_image_files_takes_the_key() -> None:
    assert {
        name for name, one in FORMATS.items() if "allow_paths_outside_root" not in one.options
    } <= {"drawn", "tar"}


def test_training_names_line_and_key(recipe_file: Path, root: Path, tmp_path: Path, capsys) -> None:
    rows = [{"image": "a.png", "caption": "x"}, {"image": "../secret.png", "caption": "x"}]
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = [str(recipe_file), f"data.train.path={root / 't.jsonl'}", f"run.dir={tmp_path / 'r'}"]
    given.append("data.train.allow_paths_outside_root=false")
    assert train.main(given) == 2
    message = capsys.readouterr().err
    assert "t.jsonl:2: the image" in message
    assert "`allow_paths_outside_root: true`" in message
