"""The examples run, on the bundled model and without a network, and do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from test_notebooks import execute

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FOR_NOTEBOOKS = EXAMPLES / "train_from_python.ipynb"


def test_the_plain_loop_learns(capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location("plain_loop", EXAMPLES / "plain_loop.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = example.main(epochs=3)
    assert len(losses) == 3
    # 72 texts of which half are one of three colours: to halve the loss is to read the image.
    assert losses[-1] < losses[0] / 2


def test_dpo_with_trl_prefers_the_chosen_text(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs qvft[trl]")
    spec = importlib.util.spec_from_file_location("dpo_with_trl", EXAMPLES / "dpo_with_trl.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    lines = example.main(tmp_path)
    assert lines[0]["rewards/margins"] == 0  # the reference is the model itself
    assert lines[-1]["rewards/margins"] > 0 and lines[-1]["loss"] < lines[0]["loss"]
    assert (tmp_path / "run" / "adapter" / "manifest.json").is_file()


def test_the_plain_loop_uses_no_recipe_and_no_trainer() -> None:
    code = (EXAMPLES / "plain_loop.py").read_text()
    assert not re.search(r"import.*(Recipe|Trainer)|qvft\.recipe", code)


def test_the_notebook_trains_evaluates_and_merges(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "recipes").symlink_to(EXAMPLES.parent / "recipes")
    space = execute(FOR_NOTEBOOKS, tmp_path / "examples").space
    assert space["losses"].values[-1] < space["losses"].values[0]
    report = space["report"]
    assert report.n == 24 * 3
    # It has learnt to look: the same model is worse with the images shuffled.
    assert report.metrics["exact_match"] > report.baselines["blind"]["exact_match"]
    assert (tmp_path / "examples" / "merged" / "shapes" / "merge.json").is_file()
    assert space["again"].folder == space["run"].folder
