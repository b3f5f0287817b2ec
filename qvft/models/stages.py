"""The forward pass by stages, for whichever family: what an image's rows share, what each is.

A family's module has `encode_images(model, pixel_values)`, computed once an image, and
`embed_rows(model, rows, images=, image_index=)`, the decoder's input of each row. What follows,
`decode_hidden` and `logits_at` of `blip2`, is the same for all.

Shape letters: I images, B rows, L row length, D decoder width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qvft.models import blip2
from qvft.models.blip2 import decode_hidden, logits_at
from qvft.models.question_aware import stages as question_aware

__all__ = ["decode_hidden", "embed_rows", "encode_images", "logits_at"]

# By `model_type`; each module has the two functions.
_STAGES: dict[str, Any] = {"blip-2": blip2, "instructblip": question_aware}


def encode_images(model: Any, pixel_values: Tensor) -> Tensor:
    """(I, ...) what all rows of an image share, of normalised images (I, 3, height, width)."""
    return _STAGES[model.config.model_type].encode_images(model, pixel_values)


def embed_rows(
    model: Any, rows: Mapping[str, Tensor], *, images: Tensor, image_index: Tensor
) -> Tensor:
    """The decoder's input (B, L, D).

    Args:
        rows: `input_ids` (B, L) and, where the Q-Former reads the prompt, `qformer_input_ids` and
            `qformer_attention_mask` (B, T).
        images: (I, ...) from `encode_images`.
        image_index: (B,) which image each row belongs to.

    Raises:
        QvftError: a row would ignore its image.
    """
    return _STAGES[model.config.model_type].embed_rows(
        model, rows, images=images, image_index=image_index
    )
