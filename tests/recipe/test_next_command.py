"""Each program ends with the command that comes next, and that command parses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from qvft.check import main as check
from qvft.convert import main as convert
from qvft.recipe import next_command
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.recipe.next_command import after_evaluation, after_merge, after_training

FORMATS = Path(__file__).resolve().parents[2] / "data_formats"


def last_command(capsys: pytest.CaptureFixture) -> list[str]:
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("next: qvft ")
    return shlex.split(line)[2:]


def test_check_is_followed_by_training_with_the_same_overrides(
    recipe_file: Path, capsys: pytest.CaptureFixture
) -> None:
    assert check([str(recipe_file), "--only", "recipe", "train.epochs=2"]) == 0
    program, *arguments = last_command(capsys)
    assert (program, arguments) == ("check", [str(recipe_file), "train.epochs=2"])
    assert load_recipe(arguments[0], arguments[1:]).train.epochs == 2


def test_conversion_is_followed_by_a_project(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "my rows.jsonl"
    assert convert(["csv", str(FORMATS / "csv" / "train.csv"), str(out)]) == 0
    assert last_command(capsys) == ["init", str(out)]


def test_training_is_followed_by_evaluation_on_the_test_images(tmp_path: Path) -> None:
    content = {
        "name": "pets",
        "model": {"id": "qvft/tiny-blip2"},
        "data": {"eval": {"path": str(tmp_path / "val.jsonl")}},
    }
    recipe = parse_recipe(content, where="x")
    assert after_training(recipe) == ["qvft", "eval", "runs/pets"]
    (tmp_path / "test.jsonl").touch()
    assert after_training(recipe)[3:] == [
        f"data.eval.path={tmp_path / 'test.jsonl'}",
        "data.eval.name=pets-test",
    ]
    assert "data.eval.path=YOUR_TEST_DATA" in after_training(
        parse_recipe(content | {"data": {}}, where="x")
    )


def test_a_run_is_merged_and_then_asked_about_an_image_of_its_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(next_command, "find_spec", lambda name: None)
    assert after_evaluation("merged/pets") == []
    Path("runs/pets/adapter").mkdir(parents=True)
    assert after_evaluation("runs/pets") == ["qvft", "merge", "runs/pets", "merged/pets"]
    assert after_merge("runs/pets", "out") == ["qvft", "predict", "out", "YOUR_IMAGE"]
    Path("runs/pets/eval/val").mkdir(parents=True)
    row = {"image": "a b.png", "question": "Which animal?", "prediction": "cat"}
    Path("runs/pets/eval/val/predictions.jsonl").write_text(json.dumps(row) + "\n")
    Path("merged/pets").mkdir(parents=True)
    expected = ["qvft", "predict", "merged/pets", "a b.png", "--question", "Which animal?"]
    assert after_evaluation("runs/pets") == expected


def test_a_merged_model_is_tried_in_the_demo_where_gradio_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_command, "find_spec", lambda name: object())
    assert after_merge(str(tmp_path), "out") == ["qvft", "demo", "out"]
