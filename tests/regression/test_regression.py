"""Checkpoints that earlier versions wrote are read, say what they said, and merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from measuring import row_losses, texts

from qvft.check import main as check
from qvft.setup.model import trained_model
from qvft.setup.resolve_model import load_resolved, resolve_model
from qvft.setup.run_recipe import run_recipe
from qvft.train import main as train
from qvft.weights.merge import merge_run

KEPT = sorted(path.parent for path in Path(__file__).parent.glob("*/expected.json"))
TOLERANCE = {"rel": 1e-4, "abs": 1e-5}
"""Float32 sums of some hundred terms, in the order that a CPU and a torch release like best; a
weight that is left out moves the sum of the losses by far more."""


@pytest.fixture(params=KEPT, ids=[path.name for path in KEPT])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a checkpoint, and what it said when it was written."""
    run = Path(shutil.copytree(request.param, tmp_path / "run"))
    return run, json.loads((run / "expected.json").read_text())


def test_there_is_a_checkpoint_of_every_version_so_far() -> None:
    assert [path.name for path in KEPT] == ["0.1.0"]


def test_an_earlier_checkpoint_says_what_it_said(kept: tuple[Path, dict[str, Any]]) -> None:
    run, expected = kept
    recipe = run_recipe(run, [])
    found = row_losses(trained_model(run, recipe), recipe)
    assert found == pytest.approx(expected["row_losses"], **TOLERANCE)
    base = expected["base_row_losses"]
    assert sum(base.values()) > 2 * sum(found.values())  # it is not the base that was asked
    assert texts(run) == expected["texts"]
    assert check([str(run)]) == 0  # the report just written among what is verified


def test_an_earlier_checkpoint_is_merged(kept: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run, expected = kept
    merge_run(run, tmp_path / "merged")
    recipe = run_recipe(run, [])
    merged = load_resolved(resolve_model(str(tmp_path / "merged")))
    assert row_losses(merged, recipe) == pytest.approx(expected["row_losses"], **TOLERANCE)


def test_a_run_starts_from_an_earlier_checkpoint(
    kept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, expected = kept
    still = ["train.learning_rate=0", "train.max_steps=1", "phases=[]"]
    given = [f"train.from={run}", f"run.dir={tmp_path / 'new'}", *still]
    assert train([str(run / "recipe.lock.yaml"), *given]) == 0
    recipe = run_recipe(tmp_path / "new", [])
    found = row_losses(trained_model(tmp_path / "new", recipe), recipe)
    assert found == pytest.approx(expected["row_losses"], **TOLERANCE)
