"""`qvft.eval` from the command line: a run, its base, a merged model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qvft.errors import DataError
from qvft.eval import main
from qvft.recipe.load import load_recipe
from qvft.training.prepare_training import prepare_training

PREDICTED = ["eval.blind=false", "data.num_workers=0"]


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report, and the rows of `predictions.jsonl`."""
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((folder / "report.json").read_text()), [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def moved_run(tiny_run: Path, recipe_file: Path, tmp_path_factory) -> Path:
    """A run that was moved after its training, evaluated after its base."""
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("moved") / "run"))
    base = load_recipe(recipe_file).model.id
    assert main([base, f"run.dir={run}", "--recipe", str(recipe_file), *PREDICTED]) == 0
    assert main([str(run)]) == 0
    return run


def test_a_run_leaves_its_report_by_dataset(moved_run: Path) -> None:
    folder = moved_run / "eval" / "shapes-test"
    found = {path.name for path in folder.iterdir()}
    assert found == {"predictions.jsonl", "report.json", "report.html"}
    assert [path.name for path in folder.parent.iterdir()] == ["shapes-test"]


def test_the_report_has_n_and_metrics(moved_run: Path) -> None:
    report, rows = read(moved_run / "eval" / "shapes-test")
    assert report["n"] == len(rows) == 8 * 3  # a caption and two questions an image
    right = [row["scores"]["exact_match"] for row in rows if "question" in row]
    assert report["metrics"]["exact_match"] == pytest.approx(100 * sum(right) / 16)
    assert {"CIDEr", "caption_exact_match"} <= set(report["metrics"])


def test_rows_of_predictions_have_the_fixed_keys(moved_run: Path) -> None:
    _, rows = read(moved_run / "eval" / "shapes-test")
    always = {"id", "image", "prediction", "references", "scores"}
    assert all(always <= set(row) for row in rows)
    assert {row["kind"] for row in rows if "question" in row} == {"question"}
    assert sum("question" in row for row in rows) == 16
    assert len({row["id"] for row in rows}) == 24
    assert [row["references"] for row in rows[:3]] == [["a red picture"], ["red"], ["yes"]]


def test_the_base_is_evaluated_beside_the_run(moved_run: Path) -> None:
    report, _ = read(moved_run / "eval-base" / "shapes-test")
    assert report["model"]["kind"] == "base"
    assert report["loss_curve"] == []


def test_the_base_stands_as_a_baseline_in_the_report_of_the_run(moved_run: Path) -> None:
    """Though the run was moved: its recipe names the folder it was trained in."""
    base, _ = read(moved_run / "eval-base" / "shapes-test")
    report, _ = read(moved_run / "eval" / "shapes-test")
    assert report["baselines"]["base"] == base["metrics"]
    assert set(report["baselines"]) == {"base", "most_frequent_answer", "blind"}


def test_the_run_shows_its_loss_by_step(moved_run: Path) -> None:
    report, _ = read(moved_run / "eval" / "shapes-test")
    assert [point["step"] for point in report["loss_curve"]] == [1, 2, 3, 4, 5, 6]


def test_a_base_that_was_decoded_otherwise_is_no_baseline(moved_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    changed = "eval.answer.max_new_tokens=2"
    assert main([str(moved_run), "--out", str(out), *PREDICTED, changed]) == 0
    assert "base" not in read(out)[0]["baselines"]


def test_a_base_counts_as_baseline_wherever_the_report_goes(moved_run: Path, tmp_path) -> None:
    """And in whatever batches its texts were decoded."""
    out = tmp_path / "elsewhere"
    assert main([str(moved_run), "--out", str(out), *PREDICTED, "eval.batch_size=3"]) == 0
    assert "base" in read(out)[0]["baselines"]


def test_a_merged_folder_is_evaluated_with_a_recipe(
    merged: Path, recipe_file: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "report"
    arguments = ["--recipe", str(recipe_file), "--out", str(out), *PREDICTED]
    assert main([str(merged), *arguments, "data.eval.limit=2"]) == 0
    report, rows = read(out)
    assert report["model"]["kind"] == "model"
    assert report["n"] == len(rows) == 6
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out


def test_a_merged_folder_needs_no_recipe_where_data_is_named(
    merged: Path, shapes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    arguments = ["--out", str(out), *PREDICTED, f"data.eval.path={shapes / 'test.jsonl'}"]
    assert main([str(merged), *arguments, "data.eval.limit=1", "run.threads=1"]) == 0
    assert read(out)[0]["n"] == 3


def test_a_folder_with_anything_else_in_it_is_left_alone(tiny_run: Path, tmp_path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main([str(tiny_run), "--out", str(tmp_path)]) == 2
    assert "holds other files than a report" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_group_of_metrics_is_refused_before_anything_is_generated(
    tiny_run: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "report"
    assert main([str(tiny_run), "--out", str(out), "eval.metrics=[answer]"]) == 2
    message = capsys.readouterr().err
    assert "eval.metrics" in message and "answers" in message
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_data_is_told_what_is_missing(merged: Path, capsys) -> None:
    assert main([str(merged)]) == 2
    assert "data.eval: is not set" in capsys.readouterr().err


def test_training_does_not_read_the_test_split(recipe_file: Path) -> None:
    work = prepare_training(load_recipe(recipe_file, ["data.eval.path=absent.jsonl"]))
    assert work.eval is None


def test_training_reads_the_evaluation_split_where_it_is_told_to_watch_it(
    recipe_file: Path,
) -> None:
    recipe = load_recipe(recipe_file, ["data.eval.path=absent.jsonl", "train.eval_steps=2"])
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        prepare_training(recipe)
