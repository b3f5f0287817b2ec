"""The study of `model.image_size` in docs/studies: what its arms differ in, and that it runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from qvft.recipe.load import load_recipe

pytest.importorskip("sklearn")

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "studies" / "resolution.py"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with splits of four images."""
    spec = importlib.util.spec_from_file_location("resolution_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TRAIN", 4)
    monkeypatch.setattr(module, "TEST", 4)
    return module


def test_the_arms_differ_in_size_and_vit_alone(study: ModuleType, tmp_path: Path) -> None:
    recipe = study.write_recipe(tmp_path, steps=2)
    contents = {arm: load_recipe(recipe, given).model_dump() for arm, given in study.ARMS.items()}
    settings = {
        arm: (content["model"].pop("image_size"), content["trainable"].pop("vision"))
        for arm, content in contents.items()
    }
    assert settings == {f"{size}-{vit}": (size, vit) for size, vit in settings.values()}
    first, *others = contents.values()
    assert all(other == first for other in others)
    assert len(study.ARMS) == len({*settings.values()}) == 6


def test_it_runs_and_writes_its_table(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.json"
    given = ["--seeds", "0", "--arms", "96-full", "--steps", "1"]
    given += ["--work", str(tmp_path / "work"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *given])
    assert study.main() == 0
    table = json.loads(out.read_text(encoding="utf-8"))
    (entry,) = table["arms"]["96-full"]
    assert table["mean"] == {"96-full": entry["exact_match"]}
    report = json.loads((tmp_path / "work/96-full-0/eval/test/report.json").read_text())
    assert report["model"]["image_size"] == 96 and report["n"] == 4
