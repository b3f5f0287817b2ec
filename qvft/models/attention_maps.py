"""Attention of a forward pass: queries to patches, and text to queries.

Uses the forward pass of `forward_stages.py`.

Shape letters: B rows, L row length, T question tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.errors import ModelError
from qvft.models import prefix_attention
from qvft.models.attention_capture import Attention
from qvft.models.qvision import attention_maps as qvision

# By `model_type`; each module has an `attend`.
_ATTENTION: dict[str, Any] = {
    "blip-2": prefix_attention,
    "instructblip": prefix_attention,
    "qvision": qvision,
}


@torch.no_grad()
def attend(model: PreTrainedModel, pixel_values: Tensor, rows: Mapping[str, Tensor]) -> Attention:
    """The attention of one pass over rows of tokens with their images.

    Args:
        model: in evaluation mode; its attention kernel is restored afterwards.
        pixel_values: (B, 3, height, width) normalised, one image per row.
        rows: `input_ids` and `attention_mask` (B, L), padded on the right, and if the Q-Former
            reads the prompt `qformer_input_ids` and `qformer_attention_mask` (B, T).

    Raises:
        ModelError: its text does not read the image through a Q-Former.
        QvftError: as `forward_stages.embed_rows`.
    """
    family = _ATTENTION.get(model.config.model_type)
    if family is None:
        raise ModelError(
            f"model_type is {model.config.model_type}",
            expected=f"a model with a Q-Former: {', '.join(_ATTENTION)}",
        )
    return family.attend(model, pixel_values, rows)
