"""`eval.retention`: run and base scored on other data than the domain's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qvft.eval import main

PLAIN = ["eval.blind=false", "data.num_workers=0"]
OTHER = '{{"path": "{path}", "split": "{split}", "name": "{name}", "texts": "questions"}}'


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def evaluated(run: Path, *sources: str) -> dict[str, Any]:
    assert main([str(run), *PLAIN, f"eval.retention=[{', '.join(sources)}]"]) == 0
    report = next((run / "eval").glob("*/report.json"))
    return json.loads(report.read_text(encoding="utf-8"))


def data_of(run: Path) -> str:
    from qvft.recipe.recipe_lock import read_lock

    source = read_lock(run).data.train
    assert source is not None and source.path is not None
    return source.path


def test_run_and_base_are_scored_on_the_other_data(run: Path, capsys) -> None:
    other = OTHER.format(path=data_of(run), split="train", name="elsewhere")
    report = evaluated(run, other)
    printed = " ".join(capsys.readouterr().out.split())
    found = report["retention"]["elsewhere"]
    tuned, base = (
        json.loads((run / folder / "elsewhere" / "report.json").read_text(encoding="utf-8"))
        for folder in ("eval-retention", "eval-base")
    )
    assert (tuned["model"]["kind"], base["model"]["kind"]) == ("run", "base")
    for metric, one in found["metrics"].items():
        assert one["a"] == tuned["metrics"][metric] and one["b"] == base["metrics"][metric]
        assert one["difference"] == pytest.approx(one["a"] - one["b"])
    assert report["data"]["name"] != "elsewhere"
    assert "elsewhere" in printed
    page = next((run / "eval").glob("*/report.html")).read_text(encoding="utf-8")
    assert 'id="retention"' in page and "elsewhere" in page
    assert any("elsewhere" in sentence for sentence in report["verdict"])


def test_evaluations_that_stand_are_used_again(run: Path, monkeypatch) -> None:
    from qvft.evaluation import evaluate as evaluation

    other = OTHER.format(path=data_of(run), split="train", name="elsewhere")
    first = evaluated(run, other)
    loaded: list[str] = []
    load = evaluation.load_resolved
    monkeypatch.setattr(
        evaluation, "load_resolved", lambda opened: loaded.append(opened.kind) or load(opened)
    )
    second = evaluated(run, other)
    assert loaded == ["run"]  # on the domain's data alone
    for report in (first, second):
        for one in report["retention"].values():
            one.pop("origin")
    assert second["retention"] == first["retention"]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ('{"path": "nowhere.jsonl"}', "eval.retention.0"),
        ('{"path": "x", "spilt": "train"}', "eval.retention.0.spilt"),
    ],
)
def test_wrong_data_are_refused_by_key(run: Path, capsys, source: str, named: str) -> None:
    assert main([str(run), *PLAIN, f"eval.retention=[{source}]"]) == 2
    assert named in capsys.readouterr().err
    assert not (run / "eval").exists()


def test_two_data_sets_of_one_name_are_refused(run: Path, capsys) -> None:
    other = OTHER.format(path=data_of(run), split="train", name="elsewhere")
    assert main([str(run), *PLAIN, f"eval.retention=[{other}, {other}]"]) == 2
    assert "eval.retention.1.name" in capsys.readouterr().err
