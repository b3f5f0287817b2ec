"""The table of formats and what holds for all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qvft.data.formats import FORMATS, read_samples
from qvft.errors import DataError

DRAWN = "seed=1,count=3"


def test_importing_formats_imports_neither_torch_nor_datasets() -> None:
    code = (
        "import sys, qvft.data.formats.format_table;"
        "print([name for name in ('torch', 'datasets', 'transformers') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(DataError, match="unknown format `vqarad`.*did you mean `vqa_rad`"):
        read_samples("vqarad", "x")


def test_an_option_of_another_format_is_an_error() -> None:
    with pytest.raises(DataError, match="`questions` is set for format jsonl; expected only split"):
        read_samples("jsonl", "x", questions="q.json")


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"drawn"}))
def test_a_missing_path_is_an_error(format: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.*(no such|no file)"):
        read_samples(format, str(tmp_path / "nowhere"), split="train")


def test_limit_counts_images() -> None:
    whole = read_samples("drawn", DRAWN)
    assert read_samples("drawn", DRAWN, limit=2) == whole[:2]
    assert read_samples("drawn", DRAWN, limit=9) == whole


def test_limit_below_one_is_an_error() -> None:
    with pytest.raises(DataError, match="`limit` is 0; expected at least 1"):
        read_samples("drawn", DRAWN, limit=0)


def test_ids_that_collide_after_reading_are_an_error(tmp_path: Path) -> None:
    """Two images of different folders may have the same stem, which VQA-RAD uses as id."""
    row = {
        "phrase_type": "freeform", "image_organ": "HEAD", "question": "What?", "answer": "a",
        "question_type": "OTHER", "answer_type": "OPEN",
    }  # fmt: skip
    rows = [{**row, "qid": n, "image_name": name} for n, name in enumerate(["a.jpg", "a.png"])]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="`id of a sample` a is used twice"):
        read_samples("vqa_rad", f"{tmp_path}/rows.json", split="train", images=str(tmp_path))


def test_a_path_in_the_home_folder_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "caption": "x"}\n')
    assert len(read_samples("jsonl", "~/rows.jsonl")) == 1
