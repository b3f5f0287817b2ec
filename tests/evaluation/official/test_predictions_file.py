"""qvft's own predictions: scored again, and written as results files of evaluation servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qvft.convert import main as convert
from qvft.evaluation.rows import row_of_json
from qvft.evaluation.scoring import score
from qvft.score import main as score_files

ROWS: list[dict[str, Any]] = [
    {"id": "9#captions", "prediction": "a dog runs", "references": ["a dog runs", "a dog"]},
    {"id": "8#captions", "prediction": "", "references": ["two people eat"]},
    {"id": "9", "question": "Is it a dog?", "prediction": "yes", "references": ["yes"]},
]
ROWS = [{"image": f"{row['id'][0]}.jpg", **row} for row in ROWS]


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_predictions_get_the_scores_of_an_evaluation(tmp_path: Path) -> None:
    path, out = lines(tmp_path / "predictions.jsonl", ROWS), tmp_path / "scores.json"
    assert score_files(["predictions", "--predictions", path, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    expected = score([row_of_json(row, where="") for row in ROWS])
    assert found["metrics"] == expected.metrics and found["n"] == 3
    assert found["n_by_metric"]["exact_match"] == 1 and found["n_by_metric"]["CIDEr"] == 2
    assert found["intervals"].keys() == expected.intervals.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"references": "yes"}, "`references` is no list"),
        ({"id": "8#captions"}, "used twice"),
        ({"kind": "caption"}, "`kind` is caption"),
        ({"prediction": 1}, "no text"),
    ],
)
def test_a_row_that_would_be_scored_wrong_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    path = lines(tmp_path / "p.jsonl", [*ROWS[:2], {**ROWS[2], **change}])
    assert score_files(["predictions", "--predictions", path]) == 2
    message = capsys.readouterr().err
    assert "p.jsonl:3" in message and said in message


def test_a_null_question_is_a_caption() -> None:
    assert row_of_json({**ROWS[0], "question": None}, where="").kind == "caption"


def test_metrics_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "p.jsonl", ROWS)
    assert score_files(["predictions", "--predictions", path, "--metrics", "vqa_2017"]) == 2
    assert score_files(["predictions", "--predictions", path, "--metrics", "answers"]) == 0
    said = capsys.readouterr()
    assert "exact_match" in said.out and "CIDEr" not in said.out and "vqa_2017" in said.err


@pytest.mark.parametrize(
    ("layout", "results"),
    [
        (
            "coco_results",
            [{"image_id": 9, "caption": "a dog runs"}, {"image_id": 8, "caption": ""}],
        ),
        ("vqa_results", [{"question_id": 9, "answer": "yes"}]),
    ],
)
def test_an_evaluation_becomes_a_results_file(
    tmp_path: Path, layout: str, results: list[dict[str, Any]]
) -> None:
    path, out = lines(tmp_path / "p.jsonl", ROWS), tmp_path / "results.json"
    assert convert(["predictions", path, str(out), "--to", layout]) == 0
    assert json.loads(out.read_text()) == results


def test_the_official_reader_takes_a_results_file(tmp_path: Path) -> None:
    path, out = lines(tmp_path / "p.jsonl", ROWS), tmp_path / "results.json"
    assert convert(["predictions", path, str(out), "--to", "coco_results"]) == 0
    references = tmp_path / "captions.json"
    rows = [{"image_id": int(row["id"][0]), "caption": row["references"][0]} for row in ROWS[:2]]
    references.write_text(json.dumps({"annotations": rows}))
    scored = ["caption", "--references", str(references), "--predictions", str(out)]
    assert score_files(scored) == 0


def test_output_of_predict_takes_its_ids_from_rows_or_image_names(tmp_path: Path) -> None:
    rows = [
        {"image": "val/COCO_val2014_000000391895.jpg", "text": "a man"},
        {"image": "x.jpg", "id": "img-7", "text": "a cat"},
        {"image": "val/COCO_val2014_000000000042.jpg", "error": "truncated"},
    ]
    path, out = lines(tmp_path / "p.jsonl", rows), tmp_path / "results.json"
    assert convert(["predictions", path, str(out), "--to", "coco_results"]) == 0
    assert json.loads(out.read_text()) == [
        {"image_id": 391895, "caption": "a man"},
        {"image_id": "img-7", "caption": "a cat"},
        {"image_id": 42, "caption": ""},
    ]


@pytest.mark.parametrize(
    ("format", "to", "row"),
    [
        ("predictions", "coco_results", {"image": "x.jpg", "text": "a cat"}),
        ("predictions", "vqa_results", {"image": "9.jpg", "question": "Is it?", "text": "yes"}),
        ("predictions", "vqa_results", {"id": "9", "image": "9.jpg", "text": "a cat"}),
        ("predictions", "jsonl", {"id": "9", "image": "9.jpg", "text": "a cat"}),
        ("jsonl", "coco_results", {"id": "9", "image": "9.jpg", "caption": "a cat"}),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, format: str, to: str, row: dict[str, Any]
) -> None:
    path, out = lines(tmp_path / "p.jsonl", [row]), tmp_path / "results.json"
    assert convert([format, path, str(out), "--to", to]) == 2
    assert not out.exists()
