"""FlexAttention for packed rows: skips blocks that are fully masked.

Shape letters: R packed rows, K packed row length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig

from qvft.errors import RecipeError

KERNEL = "flex_attention"
WHERE = "model.attn_implementation"


def require_flex(config: PretrainedConfig, device: torch.device) -> None:
    """Checks that a decoder can be trained with FlexAttention on a device.

    Raises:
        RecipeError: transformers has no flex attention for this decoder, or torch no backward pass
            of it for this device.
    """
    text = config.text_config
    decoder = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(text), None)
    if not getattr(decoder, "_supports_flex_attn", False):
        raise RecipeError(
            f"flex in a {config.model_type} model with a {text.model_type} decoder, for which "
            "transformers does not have it",
            where=WHERE,
            expected="a decoder with flex attention, such as OPT or Llama",
            do="leave it at sdpa",
        )
    if device.type == "cpu":
        raise RecipeError(
            "flex on a CPU, for which torch has no backward pass of it",
            where=WHERE,
            expected="a GPU",
            do="leave it at sdpa, which gives the same losses and gradients",
        )


def use_flex(model: Any) -> None:
    """Switches the decoder, and only the decoder, to FlexAttention."""
    model.language_model.set_attn_implementation(KERNEL)


def uses_flex(model: Any) -> bool:
    """Whether the decoder uses FlexAttention."""
    return model.language_model.config._attn_implementation == KERNEL


def block_mask(owner: Tensor, text: Tensor, shared: int) -> BlockMask:
    """Block mask of packed rows, as `Packing.mask`, in blocks of 128.

    Args:
        shared: value in `text` for positions shared by all rows of their owner.
    """

    def is_visible(row: Tensor, head: Tensor, reader: Tensor, read: Tensor) -> Tensor:
        same_owner = owner[row, reader] == owner[row, read]
        own_text = text[row, reader] == text[row, read]
        return (read <= reader) & same_owner & (own_text | (text[row, read] == shared))

    rows, width = owner.shape
    return create_block_mask(is_visible, rows, None, width, width, device=owner.device)
