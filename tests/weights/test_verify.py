"""Every written weight is held against the plan, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvft.errors import VerificationError
from qvft.setup.model import base_model, base_of
from qvft.weights.merge_inputs import read_inputs
from qvft.weights.merge_plan import make_plan
from qvft.weights.write import verify_weights

LORA_KEY = "language_model.model.decoder.layers.0.fc1.weight"
BRIDGE_KEY = "language_projection.weight"
BASE_KEY = "vision_model.post_layernorm.weight"


@pytest.fixture(scope="module")
def base_and_plan(drawn_run: Path):
    found = read_inputs(drawn_run)
    base = base_model(found.recipe, base_of(found.recipe), quantized=False).model
    plan = make_plan(base, bridge=found.bridge, lora=found.lora, dtype=torch.float32)
    return base.state_dict(), plan


def test_what_merging_wrote_is_what_the_plan_says(merged: Path, base_and_plan) -> None:
    base, plan = base_and_plan
    found = verify_weights(merged, base, plan)
    assert found["keys"] == len(plan.actions) - 1  # the tied head is stored once
    assert found["weights"] == sum(tensor.numel() for tensor in plan.outline().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[LORA_KEY].view(torch.int32)[0, :1].add_(1), rf"1 of .* {LORA_KEY} \(lora\)"),
        (lambda t: t[BRIDGE_KEY][0, :1].mul_(2), rf"{BRIDGE_KEY} \(bridge\)"),
        (lambda t: t[BASE_KEY][:1].add_(1), rf"{BASE_KEY} \(untouched\)"),
        (lambda t: t.pop(BASE_KEY), f"not written, first {BASE_KEY}"),
        (lambda t: t.update(odd=torch.zeros(1)), "odd was written"),
        (lambda t: t.update({BRIDGE_KEY: t[BRIDGE_KEY].half()}), "float16"),
    ],
)
def test_any_difference_fails(merged: Path, tmp_path: Path, base_and_plan, change, message) -> None:
    folder = Path(shutil.copytree(merged, tmp_path / "copy"))
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(VerificationError, match=message):
        verify_weights(folder, *base_and_plan)
