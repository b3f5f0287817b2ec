"""Adapters of decoders as deep as real ones: PEFT shortens the names of 20 layers or more."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Blip2ForConditionalGeneration

from qvft.adapters.lora import add_lora, load_lora, lora_targets, save_lora
from qvft.adapters.lora_config import CONFIG
from qvft.adapters.targets import resolve_targets
from qvft.errors import CheckpointError
from qvft.models.families import FAMILIES
from tools.tiny_blip2.geometry import init_tiny

NAMES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
BLOCKS = 5


@pytest.fixture(scope="module")
def base() -> Any:
    config = copy.deepcopy(init_tiny(0).config)
    config.text_config.num_hidden_layers = BLOCKS
    return Blip2ForConditionalGeneration(config).eval()


@pytest.fixture
def saved(base: Any, tmp_path: Path) -> Any:
    """The adapted model; its adapter lies in the test's folder."""
    model = copy.deepcopy(base)
    handle = add_lora(model, resolve_targets(model, FAMILIES["blip2"], NAMES), r=2, lora_alpha=4)
    with torch.no_grad():
        for name, weight in handle.named_parameters():
            if ".lora_B." in name:
                weight.fill_(0.01)
    save_lora(handle, tmp_path)
    return handle


def weights(handle: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in handle.state_dict().items() if ".lora_" in name}


def rename(folder: Path, names: list[str]) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": names}))


@pytest.mark.parametrize("names", ["as saved", "as qvft 0.1.0 saved them"])
def test_every_layer_comes_back(base: Any, saved: Any, tmp_path: Path, names: str) -> None:
    if names != "as saved":
        rename(tmp_path, sorted(saved.peft_config["default"].target_modules))
    settings = json.loads((tmp_path / CONFIG).read_text())
    assert (len(settings["target_modules"]) == len(NAMES) * BLOCKS) is (names == "as saved")
    again = load_lora(copy.deepcopy(base), tmp_path)
    assert lora_targets(again) == lora_targets(saved)
    assert len(lora_targets(again)) == len(NAMES) * BLOCKS
    expected = weights(saved)
    assert weights(again).keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights(again).items())


@pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning:peft")
@pytest.mark.parametrize(
    "change",
    [
        lambda names: names[1:],
        lambda names: [*names, "language_model.lm_head"],
        lambda names: [*names, "fc1"],  # the vision tower has layers of this name too
        lambda names: [],
    ],
)
def test_settings_of_other_layers_than_the_weights_are_refused(
    base: Any, saved: Any, tmp_path: Path, change: Any
) -> None:
    rename(tmp_path, change(json.loads((tmp_path / CONFIG).read_text())["target_modules"]))
    with pytest.raises(CheckpointError, match="layers"):
        load_lora(copy.deepcopy(base), tmp_path)
