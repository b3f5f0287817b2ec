"""A family from outside: its row, its class and its configuration in another module."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig, Blip2Config, Blip2ForConditionalGeneration

from qvft.errors import ModelError, RecipeError
from qvft.merge import main as merge
from qvft.models.families import FAMILIES, add_family, family_of, register_family
from qvft.train import main as train


class OwnConfig(Blip2Config):
    model_type = "own-blip"


class OwnForConditionalGeneration(Blip2ForConditionalGeneration):
    config_class = OwnConfig


OWN = replace(
    FAMILIES["blip2"],
    name="own",
    model_type="own-blip",
    model_class="OwnForConditionalGeneration",
    module="house_family",
)


@pytest.fixture(autouse=True)
def _own_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "house_family", sys.modules[__name__])
    AutoConfig.register("own-blip", OwnConfig, exist_ok=True)
    before = dict(FAMILIES)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


def test_a_family_from_outside_is_trained_and_merged(
    tiny_folder: Path, recipe_file: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "own-blip"}))
    given = [str(recipe_file), f"model.id={base}", "train.max_steps=2"]
    given.append(f"run.dir={tmp_path / 'run'}")
    assert train(given) == 2
    assert train([*given, "model.family=house_family.OWN"]) == 0
    manifest = json.loads((tmp_path / "run" / "adapter" / "manifest.json").read_text())
    assert manifest["family"] == "own"
    assert merge([str(tmp_path / "run"), str(tmp_path / "merged")]) == 0


def test_names_and_types_are_given_once() -> None:
    assert register_family(OWN) is OWN and register_family(OWN) is OWN
    assert family_of("own-blip") is OWN
    for other in (replace(OWN, name="another"), replace(OWN, model_type="another")):
        with pytest.raises(ValueError, match="already"):
            register_family(other)


def test_what_is_no_family_is_refused() -> None:
    with pytest.raises(ModelError, match="blip2_question"):
        family_of("own-blip")
    with pytest.raises(ModelError, match="model.family=blip3"):
        family_of("blip-2", expected="blip3")
    with pytest.raises(RecipeError) as refusal:
        add_family("json.dumps")
    assert refusal.value.where == "model.family"
