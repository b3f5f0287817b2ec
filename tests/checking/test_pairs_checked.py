"""`qvft check --only data` with pairs of a chosen and a rejected text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qvft.check import main

PREFERENCE = 'phases=[{"name": "p", "objective": "preference"}]'
BOTH = 'phases=[{"name": "l"}, {"name": "p", "objective": "preference"}]'


@pytest.fixture
def data(shapes: Path, tmp_path: Path) -> Path:
    """Pairs about two training images and one of the evaluation data, and a caption."""
    lines: list[dict[str, Any]] = [
        {"id": "a", "image": "train9.png", "pairs": [
            {"question": "Which colour is it?", "chosen": "red", "rejected": "blue"},
            {"question": "Which colour is it?", "chosen": "blue", "rejected": "red"},
        ]},
        {"id": "b", "image": "train10.png", "captions": ["a green picture"], "pairs": [
            {"chosen": "a green picture", "rejected": "A green picture!"},
        ]},
        {"id": "c", "image": "test0.png", "pairs": [
            {"question": "Is it red?", "chosen": "yes", "rejected": "no " * 70},
        ]},
    ]  # fmt: skip
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def check(recipe_file: Path, shapes: Path, data: Path, tmp_path: Path):
    def call(*overrides: str, status: int = 0) -> dict[str, Any]:
        out = tmp_path / "found.json"
        source = [f"data.train.path={data}", f"data.train.images={shapes}"]
        options = ["--only", "data", "--json", str(out), "data.max_text_tokens=64"]
        assert main([str(recipe_file), *source, *options, *overrides]) == status
        return json.loads(out.read_text()) if status == 0 else {}

    return call


def test_pairs_are_counted_and_their_faults_named(check, capsys) -> None:
    found = check(PREFERENCE)
    train, warnings = found["train"], "\n".join(found["warnings"])
    assert (train["images"], train["pairs"], train["rows"]) == (3, 4, 8)
    pairs = train["quality"]["pairs"]
    assert pairs["count"] == 4
    assert pairs["equal"] == ["b#pair1"]
    assert pairs["contradictions"] == [["a#pair1", "a#pair2"]]
    assert pairs["uneven"] == ["c#pair1"]
    assert found["eval"]["quality"]["pairs"] is None
    assert "texts are equal" in warnings
    assert "a#pair1, a#pair2" in warnings
    # Longer than data.max_text_tokens.
    assert train["cut_ids"] == ["c#pair1"]
    assert "no no" not in capsys.readouterr().out


def test_pairs_that_differ_beyond_the_limit_are_counted(check, data: Path) -> None:
    same = "red " * 80
    pair = {"chosen": same + "yes", "rejected": same + "no"}
    line = {"id": "d", "image": "train11.png", "pairs": [pair, {"chosen": "b", "rejected": "c"}]}
    data.write_text(json.dumps(line) + "\n")
    (said,) = (one for one in check(PREFERENCE)["warnings"] if "the same tokens" in one)
    assert "1 of 2 pairs" in said and "d#pair1" in said


def test_pairs_about_evaluation_images_are_data_leakage(check) -> None:
    overlap = check(PREFERENCE)["eval"]["quality"]["overlap"]
    assert [(one["first"], one["second"]) for one in overlap["exact"]] == [("test0", "c")]
    assert overlap["questions"] == [["test0#2", "c#pair1"]]


def test_texts_that_no_phase_uses_are_said(check) -> None:
    assert "not its captions and questions: 1" in str(check(PREFERENCE)["notes"])
    supervised = check()
    assert "its pairs are not used: 4" in str(supervised["notes"])
    assert supervised["train"]["rows"] == 1
    assert supervised["train"]["quality"]["pairs"] is None
    both = check(BOTH)
    assert both["notes"] == []
    assert both["train"]["rows"] == 9


def test_a_recipe_without_usable_texts_is_refused(check, data: Path, capsys) -> None:
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    captions = [{"image": line["image"], "caption": "x"} for line in lines]
    pairs = [{key: line[key] for key in ("image", "pairs")} for line in lines]
    for rows, override, message in (
        (captions, PREFERENCE, "holds no pair to train on"),
        (pairs, "train.epochs=1", "add a phase with objective: preference"),
    ):
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        check(override, status=2)
        assert message in " ".join(capsys.readouterr().err.split())


def test_the_preview_shows_both_texts_of_a_pair(check, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    check(PREFERENCE, "--preview", str(page))
    text = page.read_text(encoding="utf-8")
    assert text.count('<div class="half">chosen</div>') == 4
    assert text.count('<div class="half">rejected</div>') == 4
    assert "b#pair1" in text
