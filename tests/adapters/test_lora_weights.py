"""LoRA by arithmetic: the merged weight, and files that are not what they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvft.adapters.lora_weights import CONFIG, WEIGHTS, LoraWeight, read_lora
from qvft.errors import CheckpointError
from tools.tiny_blip2.geometry import tiny_config

A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]])


def test_the_delta_is_scale_times_b_times_a() -> None:
    merged = LoraWeight(A, B, 0.5, None).merged(torch.eye(2))
    assert merged.tolist() == [[2.5, 3.0], [0.0, 1.0]]


def test_dora_scales_each_row_to_its_magnitude() -> None:
    # W + sBA = [[4, 6], [0, 1]] - [[0, 3], [0, 0]] has rows of length 5 and 1.
    weight = torch.tensor([[2.5, 0.0], [0.0, 1.0]])
    layer = LoraWeight(A * torch.tensor([1.0, 4 / 3]), B, 0.5, torch.tensor([10.0, 2.0]))
    expected = torch.tensor([[4.0, 4.0], [0.0, 1.0]])
    expected = expected / expected.norm(dim=1, keepdim=True) * torch.tensor([[10.0], [2.0]])
    torch.testing.assert_close(layer.merged(weight), expected)


def test_half_precision_weights_are_merged_in_float32() -> None:
    merged = LoraWeight(A * 2**-12, B, 1.0, None).merged(torch.eye(2, dtype=torch.bfloat16))
    assert merged.dtype == torch.float32
    assert merged[0, 0].item() == 1 + 3 * 2**-12


def test_a_saved_adapter_is_read_with_its_scale(drawn_run: Path) -> None:
    layers = read_lora(drawn_run / "adapter")
    name = "language_model.model.decoder.layers.0.fc1.weight"
    text = tiny_config().text_config
    assert layers[name].shape == (text.ffn_dim, text.hidden_size)
    assert {layer.scale for layer in layers.values()} == {8 / 4}


def test_a_folder_without_lora_has_no_layers(tmp_path: Path) -> None:
    assert read_lora(tmp_path) == {}


@pytest.fixture
def adapter(drawn_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn_run / "adapter", tmp_path / "adapter"))


def test_rslora_divides_by_the_root_of_the_rank(adapter: Path) -> None:
    change_config(adapter, use_rslora=True)
    assert {layer.scale for layer in read_lora(adapter).values()} == {8 / 2}


def change_config(adapter: Path, **changes: object) -> None:
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, **changes}))


def change_weights(adapter: Path, change) -> None:
    tensors = load_file(adapter / WEIGHTS)
    change(tensors, sorted(tensors)[0])
    save_file(tensors, adapter / WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"rank_pattern": {"fc1": 2}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 8}, "expected rank 8"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_settings_that_change_the_arithmetic_are_refused(adapter: Path, changes, message) -> None:
    change_config(adapter, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_lora(adapter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, k: t.pop(k), "is missing"),
        (lambda t, k: t.__setitem__("odd.weight", t.pop(k)), "not a LoRA weight"),
        (lambda t, k: t.__setitem__(k, t[k] * float("nan")), "not finite"),
        (lambda t, k: t.clear(), "no LoRA weight"),
    ],
)
def test_damaged_weights_are_refused(adapter: Path, change, message) -> None:
    change_weights(adapter, change)
    with pytest.raises(CheckpointError, match=message):
        read_lora(adapter)


def test_a_cut_file_is_refused(adapter: Path) -> None:
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_lora(adapter)
