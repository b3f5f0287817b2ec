"""A QVision model's forward pass by stages.

Shape letters: I images, B rows, L row length, Q query tokens, D decoder width, N positions,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qvft.models.qvision.modeling import QVisionForConditionalGeneration


def encode_images(model: QVisionForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Refined query tokens (I, Q, D) of normalised images (I, 3, height, width)."""
    return model.encode_images(pixel_values)


def embed_rows(
    model: QVisionForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    image_index: Tensor,
) -> Tensor:
    """The decoder's input (B, L, D): tokens that have read their image."""
    return model.embed(rows["input_ids"], images, image_index=image_index)


def decode_hidden(
    model: QVisionForConditionalGeneration, embeds: Tensor, attention_mask: Tensor
) -> Tensor:
    """The decoder's last hidden states (B, L, D)."""
    return model.decode(embeds, attention_mask, use_cache=False).last_hidden_state


def logits_at(model: QVisionForConditionalGeneration, hidden: Tensor, where: Tensor) -> Tensor:
    """Logits (N, V) at the N positions that are true in `where` (B, L)."""
    return model.get_output_embeddings()(hidden[where])


def generate(
    model: QVisionForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    **settings: Any,
) -> Any:
    """As `models.stages.generate`; every new token reads the image, so the whole model writes."""
    written = model.generate(
        input_ids=rows["input_ids"],
        attention_mask=rows["attention_mask"],
        query_states=images,
        **settings,
    )
    length = rows["input_ids"].shape[1]
    if isinstance(written, Tensor):
        return written[:, length:]
    written.sequences = written.sequences[:, length:]
    return written
