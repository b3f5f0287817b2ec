"""What a target that is not there is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import transformers

from qvft.eval import main
from qvft.predict import main as predict


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with runs/shapes."""
    shutil.copytree(tiny_run, tmp_path / "runs" / "shapes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("runs/shape", 'runs/shape: no such folder; expected a run folder or a model folder; '
         'did you mean "runs/shapes"?'),
        ("runs/other", "runs holds shapes"),
        ("./nowhere", "./nowhere: no such folder"),
        ("/nowhere/at/all", "/nowhere/at/all: no such folder"),
        ("runs/shapes/recipe.lock.yaml", "is a file; expected a run folder"),
        ("nobody/nothing", "nobody/nothing: neither a folder here nor found on the hub"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_there_is_named(
    runs: Path, target: str, says: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([target]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "data.eval: is not set" not in said


def test_prediction_says_the_same(runs: Path, shapes: Path, capsys: pytest.CaptureFixture) -> None:
    assert predict(["runs/shape", str(shapes / "test0.png")]) == 2
    assert 'did you mean "runs/shapes"?' in capsys.readouterr().err


def test_a_hub_that_does_not_answer_is_asked_once(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_answer(name: str, file: str, **options: object) -> str:
        asked.append(file)
        raise OSError("no connection")

    monkeypatch.setattr(transformers.utils, "cached_file", no_answer)
    assert predict(["nosuch/model", str(shapes / "test0.png")]) == 2
    assert asked == ["config.json"]
