"""`data.text: blip2` through the programs: what the model reads is cleaned, nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qvft.check import main as check
from qvft.errors import DataError
from qvft.eval import main as evaluate
from qvft.inference.vision_language_model import VisionLanguageModel
from qvft.setup.resolve_model import resolve_model
from qvft.train import main as train
from qvft.weights.merge import merge_run

CLEAN = "data.text=blip2"
ODD = {
    "captions": ["A RED Picture."],
    "questions": [{"question": "Which Colour (exactly) is it?", "answers": ["Red."]}],
}


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight test shapes, the first with texts that cleaning changes."""
    folder = tmp_path_factory.mktemp("odd")
    lines = (shapes / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[0] |= ODD
    for row in rows:
        shutil.copy(shapes / row["image"], folder)
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder / "test.jsonl"


@pytest.fixture(scope="module")
def run(
    make_run: Callable[..., Path], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    source = {"format": "jsonl", "path": str(data)}
    folder = tmp_path_factory.mktemp("runs") / "cleaned"
    return make_run(folder, data={"text": "blip2", "train": source, "eval": source})


def test_check_counts_what_is_changed_and_previews_it(
    recipe_file: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, page = tmp_path / "found.json", tmp_path / "page.html"
    given = [str(recipe_file), f"data.train.path={data}", CLEAN, "--only", "data"]
    assert check([*given, "--json", str(found), "--preview", str(page)]) == 0
    # Of the others every question begins with a capital.
    assert json.loads(found.read_text())["train"]["cleaned_rows"] == 1 + 1 + 7 * 2
    assert "rows changed by data.text: blip2" in capsys.readouterr().out
    shown = page.read_text()
    assert "cleaned as data.text: blip2 says" in shown
    assert "·red" in shown and "RED" not in shown and "exactly)" not in shown


def test_words_beyond_the_limit_are_warned_about(
    recipe_file: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = json.loads(data.read_text().splitlines()[0]) | {"captions": ["red " * 51]}
    file = data.parent / "long.jsonl"
    file.write_text(json.dumps(long) + "\n")
    found = tmp_path / "found.json"
    given = [str(recipe_file), f"data.train.path={file}", CLEAN, "--only", "data"]
    assert check([*given, "--json", str(found)]) == 0
    assert json.loads(found.read_text())["train"]["shortened_ids"] == ["test0#caption0"]
    assert "data.text: blip2 cuts 1 row after 50 words" in capsys.readouterr().out


@pytest.mark.parametrize("program", [check, train])
def test_a_text_of_which_nothing_is_left_stops_both(
    program: Callable[[list[str]], int],
    recipe_file: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = json.loads(data.read_text().splitlines()[0]) | {"captions": ["..."]}
    file = data.parent / "dots.jsonl"
    file.write_text(json.dumps(row) + "\n")
    given = [str(recipe_file), f"data.train.path={file}", f"run.dir={tmp_path / 'run'}", CLEAN]
    assert program(given) == 2
    said = capsys.readouterr().err
    assert "cleaning leaves nothing of 1 text: test0#caption0" in said
    assert "Traceback" not in said


def test_a_run_and_its_merged_folder_clean_what_they_are_asked(run: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merge_run(run, merged)
    assert "clean a question so before you ask it" in (merged / "README.md").read_text()
    for name in (run, merged):
        model = VisionLanguageModel(resolve_model(str(name)))
        prompt = model.loaded.template.prompt_text("question", "Which Colour (exactly) is it?")
        assert prompt == "Question: which colour exactly is it? Answer:"
        with pytest.raises(DataError, match="cleaning leaves nothing"):
            model.answer(str(name), "...!")


def test_references_and_questions_are_written_as_they_were(run: Path) -> None:
    assert evaluate([str(run), "eval.blind=false"]) == 0
    (folder,) = (run / "eval").iterdir()
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    assert rows["test0"]["references"] == ODD["captions"]
    (asked,) = (row for row in rows.values() if row.get("references") == ["Red."])
    assert asked["question"] == "Which Colour (exactly) is it?"
    assert json.loads((folder / "report.json").read_text())["decode"]["text"] == "blip2"
