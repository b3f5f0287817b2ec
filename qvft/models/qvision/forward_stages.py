"""QVision's forward pass in stages.

Shape letters: I images, P patches, B rows, L row length, Q visual tokens, D decoder width,
N positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qvft.models.qvision.modeling import QVisionForConditionalGeneration


def encode_vision(model: QVisionForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Patch features (I, P, D) of normalised images (I, 3, height, width)."""
    return model.vision_model(pixel_values)


def encode_features(model: QVisionForConditionalGeneration, features: Tensor) -> Tensor:
    """Visual tokens (I, Q, D) of patch features (I, P, D)."""
    return model.qformer(features.to(model.qformer.dtype))[0]


def embed_rows(
    model: QVisionForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    image_index: Tensor,
) -> Tensor:
    """The decoder's input (B, L, D): token embeddings only, no image."""
    return model.embed(rows["input_ids"])


def decode_hidden(
    model: QVisionForConditionalGeneration,
    embeds: Tensor,
    attention_mask: Tensor,
    *,
    position_ids: Tensor | None = None,
) -> Tensor:
    """As `forward_stages.decode_hidden`."""
    decoded = model.decode(embeds, attention_mask, position_ids=position_ids, use_cache=False)
    assert decoded.last_hidden_state is not None
    return decoded.last_hidden_state


def read_images(
    model: QVisionForConditionalGeneration,
    hidden: Tensor,
    *,
    row: Tensor,
    images: Tensor,
    image_index: Tensor,
) -> Tensor:
    """As `forward_stages.read_images`; all positions of a row share one copy of its image."""
    counts = row.bincount(minlength=len(image_index))
    column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    width = max(int(counts.max()), 1)  # attention kernels need not support empty rows
    by_row = hidden.new_zeros(len(image_index), width, hidden.shape[-1])
    by_row = by_row.index_put((row, column), hidden)
    return model.read(by_row, model.image_memory(images)[image_index])[row, column]


def generate(
    model: QVisionForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    **settings: Any,
) -> Any:
    """As `forward_stages.generate`; every new token attends to the image, so the whole model
    generates.
    """
    written = model.generate(
        input_ids=rows["input_ids"],
        attention_mask=rows["attention_mask"],
        visual_tokens=images,
        **settings,
    )
    length = rows["input_ids"].shape[1]
    if isinstance(written, Tensor):
        return written[:, length:]
    written.sequences = written.sequences[:, length:]
    return written
