"""4-bit weights made in memory are those that loading makes, and lie where they can be cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model
from qvft.models.quantize import (
    element_count,
    quantization_config,
    quantize_in_place,
    rest_in_plain_weights,
)


@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
def test_weights_in_memory_become_what_loading_makes_of_them(
    tiny_folder: Path, double: bool
) -> None:
    base = find_checkpoint(str(tiny_folder))
    loaded = load_model(base, dtype=torch.float32, quantize="nf4", double_quantize=double)
    made = load_model(base, dtype=torch.float32)
    config = quantization_config(base.family, "nf4", double=double, compute_dtype=torch.float32)
    quantize_in_place(made, config)
    expected, found = (
        {n: m for n, m in model.named_modules() if isinstance(m, Linear4bit)}
        for model in (loaded, made)
    )
    assert expected.keys() == found.keys() and len(found) > 6
    x = torch.randn(3, 512)
    for name, layer in expected.items():
        assert torch.equal(found[name].weight, layer.weight), name
        inside = x[:, : layer.in_features]
        assert torch.equal(found[name](inside), layer(inside)), name
    assert made.is_loaded_in_4bit and not made.qformer.training


def test_plain_weights_are_bytes_that_count_as_what_they_were(tiny_folder: Path) -> None:
    model = load_model(find_checkpoint(str(tiny_folder)), dtype=torch.float32, quantize="nf4")
    layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    before = [element_count(layer.weight) for layer in layers]
    rest_in_plain_weights(model, torch.device("meta"))
    for layer, count in zip(layers, before, strict=True):
        assert type(layer.weight) is torch.nn.Parameter and layer.weight.device.type == "cpu"
        assert element_count(layer.weight) == count == layer.in_features * layer.out_features
        scales = (layer.quant_state.absmax, layer.quant_state.state2.absmax)
        assert {one.device.type for one in scales} == {"meta"}, "they wait where it will compute"
