"""`qvft sweep`: which runs, in which folders; skipped, failed, repeated."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from qvft.experiments.combinations import combinations, split_values
from qvft.sweep import main

RECIPE = """\
name: tiny
model: {id: qvft/tiny-blip2}
data: {train: {path: train.jsonl}}
"""
# Stands for `python -m qvft.train RECIPE ...` and `python -m qvft.eval RUN ...`.
PROGRAM = """\
import json, pathlib, sys
_, program, _, *overrides = sys.argv[1:]
with open("calls.txt", "a") as calls:
    print(program, *overrides, file=calls)
values = dict(one.split("=", 1) for one in overrides)
print("step 1 of 1")
if pathlib.Path("broken").exists() and values["trainable.lora.r"] == "8":
    sys.exit("qvft: out of luck")
if program == "qvft.train":
    folder = pathlib.Path(values["run.dir"])
    (folder / "adapter").mkdir(parents=True, exist_ok=True)
    (folder / "adapter" / "manifest.json").write_text("{}")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    Path("program.py").write_text(PROGRAM)
    return tmp_path


def sweep(*arguments: str) -> tuple[int, list[str]]:
    """Exit status, and the programs that were started since the last call."""
    launch = f"{shlex.quote(sys.executable)} program.py"
    Path("calls.txt").write_text("")
    status = main(["recipe.yaml", "--launch", launch, *arguments])
    return status, Path("calls.txt").read_text().splitlines()


RANKS = "trainable.lora.r=4,8"


def test_every_combination_is_run_in_a_folder_of_its_own() -> None:
    status, calls = sweep(RANKS, "train.epochs=1,2", "run.seed=3", "--runs-dir", "sw")
    assert status == 0
    names = ["r=4_epochs=1", "r=4_epochs=2", "r=8_epochs=1", "r=8_epochs=2"]
    assert [call.split("run.dir=")[1].split()[0] for call in calls] == [f"sw/{n}" for n in names]
    assert "trainable.lora.r=4 train.epochs=2 run.seed=3" in calls[1]
    assert Path("sw/runs.html").is_file()


def test_finished_combinations_are_skipped_unless_the_recipe_changes() -> None:
    assert len(sweep(RANKS)[1]) == 2
    assert sweep(RANKS) == (0, [])
    assert len(sweep(RANKS, "--eval")[1]) == 4
    assert len(sweep("trainable.lora.r=4,8,16")[1]) == 1
    assert sweep(RANKS, "train.epochs=2", "--dry-run") == (0, [])
    assert len(sweep(RANKS, "train.epochs=2")[1]) == 2


def test_a_failure_is_reported_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken").touch()
    status, calls = sweep("trainable.lora.r=8,4")
    assert status == 1 and len(calls) == 2
    said = capsys.readouterr()
    assert "out of luck" in said.out and "1 of 2 combinations failed" in said.err
    record = json.loads(Path("runs/tiny-sweep/r=8/sweep.json").read_text())
    assert record["train"] == 1
    assert "step 1 of 1" in Path("runs/tiny-sweep/r=8/train.log").read_text()
    Path("broken").unlink()
    status, calls = sweep("trainable.lora.r=8,4")
    assert status == 0 and len(calls) == 1


def test_an_evaluation_follows_where_the_recipe_has_data_for_it() -> None:
    calls = sweep(RANKS, "data.eval.path=val.jsonl")[1]
    assert [call.split()[0] for call in calls] == ["qvft.train", "qvft.eval"] * 2
    assert all("data.eval.path=val.jsonl" in call for call in calls)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train.epochs=3"], "nothing to sweep"),
        (["train.epochs", "3,6"], "expected key.path=value"),
        ([RANKS, "run.dir=x"], "--runs-dir"),
        ([RANKS, "trainable.lora.r=16"], "twice"),
        (["trainable.lora.r=4,-8"], "trainable.lora.r=-8"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_starts(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert sweep(*arguments) == (2, [])
    assert says in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3,1e-4", ["1e-3", "1e-4"]),
        ("[a, b]", ["[a, b]"]),
        ("[a,[b,c]],all-linear", ["[a,[b,c]]", "all-linear"]),
        ("{a: 1, b: 2}", ["{a: 1, b: 2}"]),
        (
            '"What, really: {question}",Q: {question}',
            ['"What, really: {question}"', "Q: {question}"],
        ),
        ("it's a,it's b", ["it's a", "it's b"]),
    ],
)
def test_commas_in_lists_and_quotes_separate_nothing(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_values_that_no_folder_can_be_called_get_folders_of_their_own() -> None:
    found = combinations("recipe.yaml", ["data.prompt.caption=a/b,a:b,a b", "name=y"], None)
    folders = [one.folder for one in found]
    assert len(set(folders)) == 3 and {one.parent.name for one in folders} == {"tiny-sweep"}
    assert all(one.name.startswith("caption=a-b") for one in folders)
