"""4-bit weights lie where they can be cut."""

from __future__ import annotations

from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit

from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model
from qvft.models.quantize import (
    element_count,
    store_as_plain_parameters,
)


def test_plain_weights_are_bytes_that_count_as_what_they_were(tiny_folder: Path) -> None:
    model = load_model(find_checkpoint(str(tiny_folder)), dtype=torch.float32, quantize="nf4")
    layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    before = [element_count(layer.weight) for layer in layers]
    store_as_plain_parameters(model, torch.device("meta"))
    for layer, count in zip(layers, before, strict=True):
        assert type(layer.weight) is torch.nn.Parameter and layer.weight.device.type == "cpu"
        assert element_count(layer.weight) == count == layer.in_features * layer.out_features
        scales = (layer.quant_state.absmax, layer.quant_state.state2.absmax)
        assert {one.device.type for one in scales} == {"meta"}, "they wait where it will compute"
