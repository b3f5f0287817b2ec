"""The study behind docs/question_aware.md: what it asks, what its arms differ in, that it runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from qvft.recipe.load import load_recipe
from tools.tiny_blip2.drawn import questions, sample_scene

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "studies" / "question_aware.py"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with splits of four images."""
    spec = importlib.util.spec_from_file_location("question_aware_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TRAIN", (11, 4))
    monkeypatch.setattr(module, "TEST", (2, 4))
    return module


def test_a_split_holds_the_questions_about_one_thing_of_crowded_scenes(
    study: ModuleType, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in study.write_split(tmp_path, "t", 2, 3).open()]
    crowded = [scene for i in range(100) if len((scene := sample_scene(2, i)).things) > 2]
    expected = [
        (f"t/{index}.png", str(len(scene.things)), question, answer)
        for index, scene in enumerate(crowded[:3])
        for question, answer in questions(scene)
        if not question.startswith(("How many", "Is there any", "Is anything"))
    ]
    found = [(r["image"], r["meta"]["things"], r["question"], r["answer"]) for r in rows]
    assert found == expected


def test_the_arms_differ_in_the_text_branch_alone(study: ModuleType, tmp_path: Path) -> None:
    recipe = study.write_recipe(tmp_path, queries=1, steps=2)
    blind, aware = (load_recipe(recipe, study.ARMS[arm]).model_dump() for arm in ("blind", "aware"))
    assert (blind["model"].pop("text_branch"), aware["model"].pop("text_branch")) == (None, "fresh")
    assert blind == aware


def test_it_runs_and_writes_its_table(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.json"
    given = ["--seeds", "0", "--steps", "1", "--work", str(tmp_path / "work"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *given])
    assert study.main() == 0
    table = json.loads(out.read_text())
    row = table["seeds"][0]
    lines = (tmp_path / "work" / "test.jsonl").read_text().splitlines()
    assert row["n"] == len(lines)
    gap = row["aware"]["exact_match"] - row["blind"]["exact_match"]
    assert row["difference"] == pytest.approx(gap)
    assert table["mean"]["difference"] == pytest.approx(gap)
