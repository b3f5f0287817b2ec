"""4-bit weights made in memory are those that loading makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model
from qvft.models.quantize import quantization_config
from tools.quantize_in_place import quantize_in_place


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
