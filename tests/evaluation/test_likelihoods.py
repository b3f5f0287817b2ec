"""`eval.scores`, `eval.candidates` and `eval.abstain_below` in predictions and report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qvft.data.formats import read_samples
from qvft.data.rows import evaluation_rows
from qvft.data.write_jsonl import write_jsonl
from qvft.errors import RecipeError
from qvft.eval import main as evaluate
from qvft.evaluation.likelihoods import with_candidates
from qvft.recipe.load import load_recipe


@pytest.fixture(scope="module")
def evaluated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval") / "report"
    given = ["eval.scores=true", "eval.candidates=[yes, no]", "eval.abstain_below=0.5"]
    assert evaluate([str(tiny_run), *given, "--out", str(out)]) == 0
    return out


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_predictions_hold_probabilities_and_candidates(evaluated: Path) -> None:
    report, rows = json.loads((evaluated / "report.json").read_text()), rows_of(evaluated)
    assert report["n_by_group"]["scores"] == len(rows) == 24
    asked = [row for row in rows if row.get("question") == "Is it red?"]
    for row in rows:
        scores = row["scores"]
        assert scores["probability"] == pytest.approx(math.exp(scores["log_prob"]))
        assert scores["abstained"] == float(scores["probability"] < 0.5)
        assert ("candidate" in scores) == (row in asked)  # the others' answer is not among them
    right = [row["scores"]["candidate"] == row["references"][0] for row in asked]
    assert [row["scores"]["candidate_acc"] for row in asked] == [float(one) for one in right]
    assert report["metrics"]["candidate_acc"] == pytest.approx(100 * sum(right) / len(right))
    assert report["n_by_group"]["candidates"] == len(asked) == 8
    assert "candidate_acc" in report["baselines"]["blind"]


def test_the_report_holds_calibration_and_its_diagram(evaluated: Path) -> None:
    report = json.loads((evaluated / "report.json").read_text())
    assert report["calibration"]["generated"]["n"] == 16  # captions are neither right nor wrong
    assert report["calibration"]["candidates"]["n"] == 8
    page = (evaluated / "report.html").read_text()
    assert page.count('aria-label="Accuracy by probability') == 2


def test_another_evaluation_is_compared_by_its_ranking_too(
    evaluated: Path, tiny_run: Path, tmp_path: Path
) -> None:
    given = ["eval.candidates=[yes, no]", "eval.abstain_below=0.5", "--out", str(tmp_path / "b")]
    assert evaluate([str(tiny_run), *given, "--against", str(evaluated)]) == 0
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert report["against"]["metrics"]["candidate_acc"]["difference"] == 0
    given[0] = "eval.candidates=[no, yes, maybe]"  # another task
    assert evaluate([str(tiny_run), *given, "--overwrite", "--against", str(evaluated)]) == 0
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert "candidate_acc" not in report["against"]["metrics"]


def test_candidates_are_a_questions_own_else_those_given(
    recipe_file: Path, shapes: Path, tmp_path: Path
) -> None:
    content = {
        "image": str(shapes / "test0.png"),
        "questions": [
            {"question": "Which colour?", "answer": "red", "candidates": ["red", "blue", "red"]},
            {"question": "Is it red?", "answer": "Yes."},
            {"question": "What is it?", "answer": "a square"},
        ],
    }
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps(content) + "\n")
    written = tmp_path / "again.jsonl"
    write_jsonl(read_samples("jsonl", str(file), allow_paths_outside_root=True), written)
    samples = read_samples("jsonl", str(written), allow_paths_outside_root=True)

    def found(*given: str) -> list[tuple[str, ...]]:
        rows = with_candidates(load_recipe(recipe_file, given), evaluation_rows(samples))
        return [row.candidates for row in rows]

    assert found() == [("red", "blue"), (), ()]
    assert found("eval.candidates=[yes, no]") == [("red", "blue"), ("yes", "no"), ()]
    names = tmp_path / "names.txt"
    names.write_text("a square\na circle\n")
    assert found(f"eval.candidates={names}")[2] == ("a square", "a circle")
    assert set(found("eval.candidates=train")[1]) == {"red", "green", "blue", "yes", "no"}
    with pytest.raises(RecipeError, match="no file"):
        found("eval.candidates=yes")
