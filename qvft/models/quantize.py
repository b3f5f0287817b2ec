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
    """A configuration that quantises the decoder's blocks and nothing else.

    By default bitsandbytes would also quantise the ViT and the projection that is trained
    (and PEFT's preparation would cast the ViT to float32), so every other part is named.

    Args:
        scheme: `nf4` or `fp4` (Source: QLoRA, arXiv 2305.14314, section 3).
        double: quantise the quantisation constants too.
        compute_dtype: type of the matrix products.

    Raises:
        MissingToolError: bitsandbytes is not installed.
    """
    require_package("bitsandbytes", wanted_by="model.quantize.scheme", install="bitsandbytes")
    spared = [prefix for part, prefix in family.parts.items() if part != "decoder"]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=scheme,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=[*spared, "lm_head"],
    )


def keep_layout(model: nn.Module) -> None:
    """Has 4-bit weights on a CPU stay as they were quantised, in place.

    At the first pass in evaluation mode on a processor with AVX-512 for bfloat16, bitsandbytes
    lays them out anew for a product that rounds to bfloat16 and has no gradient, so that training
    after it fails. Source: bitsandbytes 0.50, nn/modules.py, `Linear4bit.forward`.
    """
    for module in _layers(model):
        module.support_avx512bf16_for_cpu = False


def rest_in_plain_weights(model: nn.Module, place: torch.device) -> None:
    """Has 4-bit weights lie in plain parameters, which can be cut among processes, in place.

    A `Params4bit` carries what its numbers are scaled by, and loses it when it is cut. Its layer
    has that too and, where the weight it computes with has none, puts it beside it again: it was
    made so for weights that FSDP gathers. What scales them stays whole on the layer: with double
    quantisation 1 byte for 32 of packed weights, without 4.
    Source: bitsandbytes 0.50, nn/modules.py, `fix_4bit_weight_quant_state_from_module`.

    Args:
        place: where the layers will compute.
    """
    for module in _layers(model):
        module.quant_state = module.weight.quant_state
        module.quant_state.to(place)
        module.weight = nn.Parameter(module.weight.data, requires_grad=False)


def _layers(model: nn.Module) -> Iterator[Any]:
    """The 4-bit layers; none where bitsandbytes, which would have made them, is not in use."""
    if "bitsandbytes" in sys.modules:
        from bitsandbytes.nn import Linear4bit

        yield from (module for module in model.modules() if isinstance(module, Linear4bit))


def element_count(parameter: nn.Parameter) -> int:
    """Weights a parameter stands for; a 4-bit parameter stores two in a byte."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return int(torch.Size(state.shape).numel())
    # Bytes are what `rest_in_plain_weights` leaves.
    return parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)
