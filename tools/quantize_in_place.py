"""4-bit weights for a model whose weights are in memory: random ones, for measurements."""

from __future__ import annotations

from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.integrations import replace_with_bnb_linear

from qvft.models.quantize import disable_cpu_repacking


def quantize_in_place(model: PreTrainedModel, config: BitsAndBytesConfig) -> None:
    """Makes of the weights that a model holds what loading makes of a checkpoint's.

    One layer after the other, so that the memory of a layer's old weights is free for the next.
    """
    linear = {name: m for name, m in model.named_modules() if type(m) is nn.Linear}
    replace_with_bnb_linear(
        model, modules_to_not_convert=config.llm_int8_skip_modules, quantization_config=config
    )
    for name, module in model.named_modules():
        if not isinstance(module, Linear4bit):
            continue
        old = linear.pop(name)
        weight = Params4bit(
            old.weight.data,
            requires_grad=False,
            quant_type=config.bnb_4bit_quant_type,
            compress_statistics=config.bnb_4bit_use_double_quant,
            module=module,
        )
        # Moving is what quantises. bitsandbytes annotates its overloads of `to` with a free type.
        module.weight = weight.to(old.weight.device)  # type: ignore[misc]
        module.bias = old.bias
        module.train(old.training)
    # Loading leaves these marks, by which PEFT chooses its layers.
    for mark in ("is_loaded_in_4bit", "is_quantized"):
        setattr(model, mark, True)
    disable_cpu_repacking(model)
