"""`qvft.check` of a recipe with alignment: the objective that training would learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qvft.check import main
from qvft.models.alignment.heads import AlignmentHeads
from qvft.train import main as train

OBJECTIVES = "objectives={lm: 1.0, itc: 0.5, itm: 0.5}"


def checks(recipe_file: Path, out: Path, *overrides: str, status: int = 0) -> dict[str, Any]:
    given = [str(recipe_file), OBJECTIVES, f"run.dir={out.parent / 'run'}", *overrides]
    assert main([*given, "--json", str(out)]) == status
    return {check["name"]: check for check in json.loads(out.read_text())["checks"]}


def test_heads_stand_among_components_with_a_gradient(recipe_file: Path, tmp_path: Path) -> None:
    found = checks(recipe_file, tmp_path / "f.json")
    gradients = found["train: a gradient reaches every trained component"]
    assert gradients["passed"] and "heads " in gradients["detail"]
    assert found["train: exchanging images moves the loss"]["passed"]


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the output of one head out of the graph, as a mistake in a forward pass would."""
    make = AlignmentHeads.__init__

    def cut(self: Any, *arguments: Any, **further: Any) -> None:
        make(self, *arguments, **further)
        self.text_projection.register_forward_hook(lambda *call: call[-1].detach())

    monkeypatch.setattr(AlignmentHeads, "__init__", cut)


@pytest.mark.usefixtures("dead")
def test_a_dead_head_fails_the_check_by_name(recipe_file: Path, tmp_path: Path, capsys) -> None:
    found = checks(recipe_file, tmp_path / "f.json", status=1)
    gradients = found["train: a gradient reaches every trained component"]
    assert not gradients["passed"] and "heads.text_projection" in gradients["detail"]
    assert "checks failed" in capsys.readouterr().err


@pytest.mark.usefixtures("dead")
def test_a_dead_head_stops_training_at_its_first_step(
    recipe_file: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    assert train([str(recipe_file), OBJECTIVES, f"run.dir={run}"]) == 1
    assert "heads.text_projection should be trained" in capsys.readouterr().err
    assert not (run / "adapter").exists()


def test_without_alignment_there_are_no_heads(recipe_file: Path, tmp_path: Path) -> None:
    found = checks(recipe_file, tmp_path / "f.json", "objectives={lm: 1.0}")
    gradients = found["train: a gradient reaches every trained component"]
    assert gradients["passed"] and "heads" not in gradients["detail"]
