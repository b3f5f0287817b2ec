"""The study behind docs/alignment.md: what its arms differ in, and that it runs to its table."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qvft.recipe.recipe_lock import read_lock

STUDIES = Path(__file__).resolve().parents[1] / "docs" / "studies"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with splits and a base of a few images."""
    monkeypatch.syspath_prepend(str(STUDIES))
    spec = importlib.util.spec_from_file_location("alignment_study", STUDIES / "alignment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = sys.modules["alignment_data"]
    monkeypatch.setattr(data, "TRAIN", 6)
    monkeypatch.setattr(data, "HELD_OUT", 4)
    monkeypatch.setattr(data, "BASE", 4)
    return module


def test_its_arms_start_from_one_base_and_differ_in_their_objectives_alone(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "work", tmp_path / "table.json"
    steps = ["--seeds", "0", "--steps", "1", "--base-steps", "1", "--weight", "0.5"]
    monkeypatch.setattr(sys, "argv", ["alignment.py", "scenes", str(folder), *steps])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(out)])
    assert study.main() == 0
    lm, both = (read_lock(folder / f"{arm}-0").model_dump() for arm in ("lm", "both-0.5"))
    assert (lm["run"].pop("dir"), both["run"].pop("dir")) == tuple(
        str(folder / f"{arm}-0") for arm in ("lm", "both-0.5")
    )
    assert (lm.pop("objectives")["itc"], both.pop("objectives")["itc"]) == (0.0, 0.5)
    assert lm == both
    assert lm["model"]["id"] == str(folder / "base_merged")

    table = json.loads(out.read_text())
    for arm in ("lm", "both-0.5"):
        row = table[arm]["0"]
        report = json.loads((folder / f"{arm}-0/eval/heldout/report.json").read_text())
        assert row["CIDEr"][0] == report["metrics"]["CIDEr"]
        assert len(row["heads"]) == 4
        assert set(row["language_loss"]) == {"image_to_text", "text_to_image"}
    # The arm with heads of its own is ranked by them, as its report is.
    assert table["both-0.5"]["0"]["heads"].items() <= report["metrics"].items()
