"""Forward pass in stages for every family: computed once per image, or once per row.

Shape letters: I images, P patches, W ViT width, B rows, L row length, D decoder width,
N positions, V vocabulary.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from qvft.models.families import family_of


def encode_vision(model: Any, pixel_values: Tensor) -> Tensor:
    """(I, P, W) ViT features of normalised images (I, 3, height, width).

    All that a frozen ViT has to do for an image, however often and by whatever it is read.
    """
    return _stages(model).encode_vision(model, pixel_values)


def encode_features(model: Any, features: Tensor) -> Tensor:
    """(I, ...) what all rows of an image share, of its ViT features (I, P, W)."""
    return _stages(model).encode_features(model, features)


def query_states(model: Any, features: Tensor) -> Tensor:
    """(I, Q, width) what the query tokens become, of ViT features (I, P, W) and no question.

    Of a family without such a step it is what `encode_features` gives.
    """
    family = _stages(model)
    return getattr(family, "query_states", family.encode_features)(model, features)


def encode_images(model: Any, pixel_values: Tensor) -> Tensor:
    """(I, ...) what all rows of an image share, of normalised images (I, 3, height, width)."""
    return encode_features(model, encode_vision(model, pixel_values))


def embed_rows(
    model: Any, rows: Mapping[str, Tensor], *, images: Tensor, image_index: Tensor
) -> Tensor:
    """The decoder's input (B, L, D).

    Args:
        rows: `input_ids` (B, L) and, where the Q-Former reads the prompt, `qformer_input_ids` and
            `qformer_attention_mask` (B, T).
        images: (I, ...) from `encode_features`.
        image_index: (B,) which image each row belongs to.

    Raises:
        QvftError: a row would ignore its image.
    """
    return _stages(model).embed_rows(model, rows, images=images, image_index=image_index)


def decode_hidden(
    model: Any, embeds: Tensor, attention_mask: Tensor, *, position_ids: Tensor | None = None
) -> Tensor:
    """The decoder's last hidden states (B, L, D) before the language-model head.

    Args:
        embeds: (B, L, D) from `embed_rows`.
        attention_mask: (B, L) 1 at tokens; or (B, 1, L, L), what is added to attention's scores.
        position_ids: (B, L); None: tokens are counted from 0.
    """
    return _stages(model).decode_hidden(model, embeds, attention_mask, position_ids=position_ids)


def read_images(
    model: Any, hidden: Tensor, *, row: Tensor, images: Tensor, image_index: Tensor
) -> Tensor:
    """(N, D) what the language-model head is given, of the decoder's last hidden states (N, D).

    Where a family's text meets its image before or within the decoder these are the same.

    Args:
        row: (N,) which row each belongs to, in ascending order.
        images: (I, ...) from `encode_features`.
        image_index: (B,) which image each row belongs to.
    """
    read = getattr(_stages(model), "read_images", None)
    if read is None:
        return hidden
    return read(model, hidden, row=row, images=images, image_index=image_index)


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits (N, V) of hidden states (N, D) from `read_images`."""
    return model.get_output_embeddings()(hidden)


def decode_prefix(model: Any, images: Tensor, ids: Sequence[int]) -> Tensor:
    """(I, ...) the decoder's keys and values of what rows begin with, to go on from in `generate`.

    Args:
        model: of a family that shares a prefix.
        images: (I, ...) from `encode_features`.
        ids: the tokens that rows begin with, all image tokens among them.
    """
    return _stages(model).decode_prefix(model, images, ids)


def continues_prefix(model: Any, settings: Mapping[str, Any]) -> bool:
    """Whether `generate` can go on from `decode_prefix` and write what it writes without.

    Args:
        settings: of `generate`.
    """
    shares = family_of(model.config.model_type).shares_prefix
    return shares and _stages(model).continues_prefix(model, settings)


def generate(model: Any, rows: Mapping[str, Tensor], *, images: Tensor, **settings: Any) -> Any:
    """What `transformers` generates after each row, without the row itself.

    Args:
        rows: as in `embed_rows`, padded on the left or, where they begin with image tokens, behind
            some of those, with `attention_mask` (B, L).
        images: (B, ...) from `encode_features`, one a row.
        settings: of `generate`. Where `continues_prefix`, also `prefixes`, B of `decode_prefix`,
            one a row, and `prefix_tokens`: how many of their tokens count. Rows begin with these,
            and padding stands behind them.

    Returns:
        New tokens (B * num_return_sequences, T), or transformers' output with these as `sequences`
        where `return_dict_in_generate` is set.
    """
    return _stages(model).generate(model, rows, images=images, **settings)


def _stages(model: Any) -> Any:
    return _module(model.config.model_type)


@functools.cache
def _module(model_type: str) -> Any:
    """A family's module: it has the functions above, those of a prefix where rows share one, and
    `read_images` where the text meets its image behind the decoder."""
    return importlib.import_module(family_of(model_type).stages)
