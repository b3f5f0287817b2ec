"""`qvft.eval A --against B` of runs that retrieve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvft.eval import main
from qvft.evaluation import evaluate as evaluation

PLAIN = ["eval.blind=false", "data.num_workers=0"]
OVER = "--overwrite"  # in place of the evaluation that stands there, which is another one
NAME = "text_to_image_recall_at_1"


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def evaluated(aligned_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its evaluation."""
    run = Path(shutil.copytree(aligned_run, tmp_path_factory.mktemp("evaluated") / "a"))
    assert main([str(run), *PLAIN]) == 0
    return run


@pytest.fixture
def a(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "a"))


def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(evaluation, "load_resolved", refuse)


def test_recalls_of_two_evaluations_that_stand_are_compared_and_kept(
    a: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a / "eval" / "drawn-eight"
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    before = rows(folder)
    changed = rows(other)
    captions = [row for row in changed if row["kind"] == "caption"]
    assert [len(row["references"]) for row in captions] == [2] * 8
    for row in captions[:3]:
        row["scores"][NAME] = 0.0 if row["scores"][NAME] else 0.5
    text = "".join(json.dumps(row) + "\n" for row in changed)
    (other / "predictions.jsonl").write_text(text, encoding="utf-8")
    loads_nothing(monkeypatch)
    for _ in range(2):  # what is compared stays in the report that is used again
        assert main([str(a), "--against", str(other), *PLAIN]) == 0
        report = read(folder)
        found = report["against"]["metrics"][NAME]
        mine, theirs = (
            [row["scores"][NAME] for row in side if row["kind"] == "caption"]
            for side in (before, changed)
        )
        # Two captions an image: the mean over captions is the mean over images.
        assert found["a"] == pytest.approx(100 * np.mean(mine)) == report["metrics"][NAME]
        assert found["difference"] == pytest.approx(100 * (np.mean(mine) - np.mean(theirs)))
        assert found["changed"] == 3 and found["interval"] is not None
        names = {n for n in report["metrics"] if "_recall_at_" in n}
        assert len(names) == 12 and names <= report["against"]["metrics"].keys()
        assert report["against"]["metrics"]["CIDEr"]["difference"] == 0.0
        assert rows(folder) == before


def test_another_number_of_candidates_is_another_evaluation(a: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(a / "eval" / "drawn-eight", tmp_path / "other"))
    assert main([str(a), "--against", str(other), *PLAIN, "eval.rerank=1", OVER]) == 0
    against = read(a / "eval" / "drawn-eight")["against"]
    assert against["settings"] == [{"setting": "decode.rerank", "a": 1, "b": 4}]


def test_a_run_without_heads_is_compared_by_its_texts(
    a: Path, drawn_run: Path, tmp_path: Path
) -> None:
    b = Path(shutil.copytree(drawn_run, tmp_path / "b"))
    metrics = "eval.metrics=[captions, retrieval]"
    assert main([str(a), "--against", str(b), *PLAIN, metrics, OVER]) == 0
    report = read(a / "eval" / "drawn-eight")
    assert NAME in report["metrics"] and NAME not in report["against"]["metrics"]
    assert "CIDEr" in report["against"]["metrics"]


def test_a_second_aligned_run_is_asked_to_retrieve_as_the_first(a: Path, tmp_path: Path) -> None:
    b = tmp_path / "b"
    shutil.copytree(a, b, ignore=shutil.ignore_patterns("eval"))
    assert main([str(a), "--against", str(b), *PLAIN, "eval.rerank=3", OVER]) == 0
    other = read(b / "eval" / "drawn-eight")
    assert other["decode"]["rerank"] == 3
    against = read(a / "eval" / "drawn-eight")["against"]
    # The same weights: every query is answered alike.
    assert {found["difference"] for found in against["metrics"].values()} == {0.0}
    assert f"{NAME}_reranked" in against["metrics"] and against["settings"] == []
