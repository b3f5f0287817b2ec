"""QLoRA: 4-bit quantization of the decoder; the one file that knows bitsandbytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from qvft.extras import require_package
from qvft.models.families import Family


def quantization_config(
    family: Family, scheme: str, *, double: bool, compute_dtype: torch.dtype
) -> BitsAndBytesConfig:
    """A BitsAndBytesConfig that quantizes only the decoder's blocks.

    By default bitsandbytes would also quantize the ViT and the trained projection (and PEFT's
    preparation would cast the ViT to float32), so every other part is excluded by name.

    Args:
        scheme: `nf4` or `fp4` (Source: QLoRA, arXiv 2305.14314, section 3).
        double: double quantization: also quantize the quantization constants.
        compute_dtype: dtype of the matrix products.

    Raises:
        MissingToolError: bitsandbytes is not installed.
    """
    require_package("bitsandbytes", wanted_by="load_in_4bit", install="bitsandbytes")
    excluded = [prefix for part, prefix in family.parts.items() if part != "decoder"]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=scheme,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=[*excluded, "lm_head"],
    )


def disable_cpu_repacking(model: nn.Module) -> None:
    """Stops bitsandbytes from repacking 4-bit weights on a CPU, in place.

    At the first pass in evaluation mode on a CPU with AVX-512 for bfloat16, bitsandbytes repacks
    them for a kernel that rounds to bfloat16 and has no gradient, so that later training fails.
    Source: bitsandbytes 0.50, nn/modules.py, `Linear4bit.forward`.
    """
    for module in _linear4bit_layers(model):
        module.support_avx512bf16_for_cpu = False


def store_as_plain_parameters(model: nn.Module, device: torch.device) -> None:
    """Stores 4-bit weights as plain parameters, which FSDP can shard, in place.

    A `Params4bit` loses its quantization state when sharded. Its layer also has it and restores it
    on gathered weights. The quantization state is not sharded: with double quantization 1 byte per
    32 bytes of packed weights, without it 4.
    Source: bitsandbytes 0.50, nn/modules.py, `fix_4bit_weight_quant_state_from_module`.
    """
    for module in _linear4bit_layers(model):
        module.quant_state = module.weight.quant_state
        module.quant_state.to(device)
        module.weight = nn.Parameter(module.weight.data, requires_grad=False)


def _linear4bit_layers(model: nn.Module) -> Iterator[Any]:
    """The 4-bit layers; none if bitsandbytes is not in use."""
    if "bitsandbytes" in sys.modules:
        from bitsandbytes.nn import Linear4bit

        yield from (module for module in model.modules() if isinstance(module, Linear4bit))


def element_count(parameter: nn.Parameter) -> int:
    """Number of weights of a parameter; a 4-bit parameter stores two per byte."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return int(torch.Size(state.shape).numel())
    # Byte parameters are from `store_as_plain_parameters`.
    return parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)
