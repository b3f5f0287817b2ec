"""The forward pass by stages, for whichever family: what an image's rows share, what each is.

Shape letters: I images, B rows, L row length, D decoder width, N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qvft.models import blip2
from qvft.models.question_aware import stages as question_aware
from qvft.models.qvision import stages as qvision

# By `model_type`; each module has the functions below.
_STAGES: dict[str, Any] = {"blip-2": blip2, "instructblip": question_aware, "qvision": qvision}


def encode_images(model: Any, pixel_values: Tensor) -> Tensor:
    """(I, ...) what all rows of an image share, of normalised images (I, 3, height, width)."""
    return _stages(model).encode_images(model, pixel_values)


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
    return _stages(model).embed_rows(model, rows, images=images, image_index=image_index)


def decode_hidden(model: Any, embeds: Tensor, attention_mask: Tensor) -> Tensor:
    """The decoder's last hidden states (B, L, D) before the language-model head."""
    return _stages(model).decode_hidden(model, embeds, attention_mask)


def logits_at(model: Any, hidden: Tensor, where: Tensor) -> Tensor:
    """Logits (N, V) at the N positions that are true in `where` (B, L)."""
    return _stages(model).logits_at(model, hidden, where)


def generate(model: Any, rows: Mapping[str, Tensor], *, images: Tensor, **settings: Any) -> Any:
    """What `transformers` generates after each row, without the row itself.

    Args:
        rows: as in `embed_rows`, padded on the left, with `attention_mask` (B, L).
        images: (B, ...) from `encode_images`, one a row.
        settings: of `generate`.

    Returns:
        New tokens (B * num_return_sequences, T), or transformers' output with these as `sequences`
        where `return_dict_in_generate` is set.
    """
    return _stages(model).generate(model, rows, images=images, **settings)


def _stages(model: Any) -> Any:
    return _STAGES[model.config.model_type]
