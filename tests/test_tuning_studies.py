"""The studies of reward and preference tuning in docs/studies: their arms, and that they run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qvft.recipe.load import load_recipe

STUDIES = Path(__file__).resolve().parents[1] / "docs" / "studies"
FAST = ["--seeds", "0", "--start-steps", "1", "--steps", "1"]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the studies share, with splits of four images."""
    module = loaded("tuned_captions")
    monkeypatch.setitem(sys.modules, "tuned_captions", module)
    monkeypatch.setattr(module, "TRAIN", (21, 4))
    monkeypatch.setattr(module, "TEST", (22, 4))
    return module


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table_of(
    shared: ModuleType, arms: dict, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict]:
    out = folder / "table.json"
    given = ["study", *FAST, "--work", str(folder / "work"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", given)
    assert shared.run_study("study", arms, "table") == 0
    return json.loads(out.read_text())


def test_a_caption_scores_by_the_things_that_it_names(shared: ModuleType) -> None:
    reference = "a red star and a pink heart"
    assert shared.things_f1("a pink heart and a red star", reference) == 1
    assert shared.things_f1("a red star at the top left", reference) == pytest.approx(2 / 3)
    assert shared.things_f1("a red star and a red star", reference) == 0.5
    texts = ["a red star at the top left", "a red star"]
    assert shared.without_places(texts, kind=["caption"] * 2) == [0, 1]


def test_arms_of_reward_tuning_differ_in_the_reward_alone(
    shared: ModuleType, tmp_path: Path
) -> None:
    recipe = shared.write_recipe(tmp_path, steps=1)
    arms = loaded("reward_tuning").ARMS
    contents = [load_recipe(recipe, arm(tmp_path, 0)).model_dump() for arm in arms.values()]
    rewards = [content.pop("reward") for content in contents]
    assert all(content == contents[0] for content in contents)
    assert [(one.pop("funcs"), one.pop("stop_token")) for one in rewards] == [
        ({"cider": 1}, True),
        ({"cider": 1}, False),
        ({"exact_match": 1}, True),
    ]
    assert rewards[0] == rewards[1] == rewards[2]


def test_reward_tuning_runs_and_writes_its_table(
    shared: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"cider_no_stop": loaded("reward_tuning").ARMS["cider_no_stop"]}
    table = table_of(shared, arms, tmp_path, monkeypatch)
    rows = table["seeds"]["0"]
    assert list(rows) == ["supervised", "supervised_more", "cider_no_stop"]
    gap = rows["cider_no_stop"]["CIDEr"] - rows["supervised_more"]["CIDEr"]
    assert rows["cider_no_stop"]["CIDEr_difference"][0] == pytest.approx(gap)
    assert rows["cider_no_stop"]["n"] == 4 == len(table["texts"])


def test_preference_tuning_makes_pairs_and_writes_its_table(
    shared: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"dpo_sft": loaded("preference_tuning").ARMS["dpo_sft"]}
    table = table_of(shared, arms, tmp_path, monkeypatch)
    lines = (tmp_path / "work" / "pairs-cider-0.jsonl").read_text().splitlines()
    assert all("pairs" in json.loads(line) for line in lines)
    assert table["mean"]["dpo_sft"]["CIDEr"] == table["seeds"]["0"]["dpo_sft"]["CIDEr"]


def test_only_the_stop_token_tells_a_caption_that_is_cut_off(
    shared: ModuleType, tmp_path: Path
) -> None:
    """A wrong last word: without it CIDEr rises, unless it misses the stop token's n-grams too."""
    references = ["a red star and a pink heart", "a blue cross and a red star", "a pink star"]
    lines = [json.dumps({"captions": [text]}) for text in references]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    evaluation = tmp_path / "run" / "eval" / "test"
    evaluation.mkdir(parents=True)
    line = {"prediction": "a red star and a pink square", "references": references[:1]}
    (evaluation / "predictions.jsonl").write_text(json.dumps(line))
    study = loaded("cut_captions")
    without, with_stop = (
        study.changes_by_cut(tmp_path / "run", stop_token=stop)[1] for stop in (False, True)
    )
    assert without[0] > 0 and without[1] == 1
    assert with_stop[0] < without[0]
