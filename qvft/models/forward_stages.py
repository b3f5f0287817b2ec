"""Forward pass in stages for every family: computed once per image, or once per row.

Shape letters: I images, P patches (of prompts: tokens), W ViT width, B rows, L row length,
D decoder width, E prompts, T question tokens, N positions, V vocabulary.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qvft.models.families import family_of


@dataclass(frozen=True)
class EncodedPrompts:
    """Encoder states of prompts with their images, which the decoder of T5 attends to.

    Attributes:
        states: (E, P, D). mask: (E, P) 1 at tokens.
        index: (B,) which prompt each row attends to.
    """

    states: Tensor
    mask: Tensor
    index: Tensor

    def in_order(self) -> EncodedPrompts:
        """For packed rows, of which each has all rows of one prompt."""
        return replace(self, index=torch.arange(len(self.states), device=self.index.device))


def encode_vision(model: Any, pixel_values: Tensor) -> Tensor:
    """(I, P, W) ViT features of normalised images (I, 3, height, width).

    Needed once per image for a frozen ViT, so it can be cached.
    """
    return _stages(model).encode_vision(model, pixel_values)


def encode_features(model: Any, features: Tensor) -> Tensor:
    """(I, ...) part that all rows of an image share, from its ViT features (I, P, W)."""
    return _stages(model).encode_features(model, features)


def query_states(model: Any, features: Tensor) -> Tensor:
    """(I, Q, width) query outputs of ViT features (I, P, W), without question.

    For a family without this stage, as `encode_features`.
    """
    family = _stages(model)
    return getattr(family, "query_states", family.encode_features)(model, features)


def encode_images(model: Any, pixel_values: Tensor) -> Tensor:
    """(I, ...) part that rows of an image share, from normalised images (I, 3, height, width)."""
    return encode_features(model, encode_vision(model, pixel_values))


def embed_rows(
    model: Any, rows: Mapping[str, Tensor], *, images: Tensor, image_index: Tensor
) -> Tensor:
    """The decoder's input (B, L, D); of an encoder-decoder the rows without image and prompt.

    Args:
        rows: `input_ids` (B, L) and, if the Q-Former reads the prompt, `qformer_input_ids` and
            `qformer_attention_mask` (B, T).
        images: (I, ...) from `encode_features`.
        image_index: (B,) which image each row belongs to.

    Raises:
        QvftError: a row would ignore its image.
    """
    if "encoder_input_ids" in rows:
        return model.language_model.get_decoder().get_input_embeddings()(rows["input_ids"])
    return _stages(model).embed_rows(model, rows, images=images, image_index=image_index)


def encode_prompts(
    model: Any, rows: Mapping[str, Tensor], *, images: Tensor, image_index: Tensor
) -> EncodedPrompts | None:
    """Encoder states of each prompt with its image; None unless the model is an encoder-decoder.

    Args:
        rows: `encoder_input_ids`, `encoder_attention_mask` (E, P), `encoder_index` (B,) and
            `encoder_rows` (E,) of `data.collate`; the Q-Former's inputs are (E, T).
    """
    if "encoder_input_ids" not in rows:
        return None
    mask = rows["encoder_attention_mask"]
    prompts = {**rows, "input_ids": rows["encoder_input_ids"]}
    prompt_image = image_index[rows["encoder_rows"]]
    embeds = _stages(model).embed_rows(model, prompts, images=images, image_index=prompt_image)
    encoder = model.language_model.get_encoder()
    states = encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    return EncodedPrompts(states, mask, rows["encoder_index"])


def decode_hidden(
    model: Any,
    embeds: Tensor,
    attention_mask: Tensor,
    *,
    position_ids: Tensor | None = None,
    prompts: EncodedPrompts | None = None,
) -> Tensor:
    """The decoder's last hidden states (B, L, D) before the language-model head.

    Args:
        embeds: (B, L, D) from `embed_rows`.
        attention_mask: (B, L) 1 at tokens; or (B, 1, L, L), added to attention scores.
        position_ids: (B, L); None: tokens are counted from 0.
        prompts: from `encode_prompts`, which the rows of an encoder-decoder attend to.
    """
    further = {} if prompts is None else {"prompts": prompts}
    return _stages(model).decode_hidden(
        model, embeds, attention_mask, position_ids=position_ids, **further
    )


def read_images(
    model: Any, hidden: Tensor, *, row: Tensor, images: Tensor, image_index: Tensor
) -> Tensor:
    """(N, D) inputs of the language-model head, from the decoder's last hidden states (N, D).

    The same, unless text and image are fused after the decoder.

    Args:
        row: (N,) row index of each, ascending.
        images: (I, ...) from `encode_features`.
        image_index: (B,) which image each row belongs to.
    """
    read = getattr(_stages(model), "read_images", None)
    if read is None:
        return hidden
    return read(model, hidden, row=row, images=images, image_index=image_index)


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits (N, V) of hidden states (N, D) from `read_images`."""
    logits = model.get_output_embeddings()(hidden)
    # Source: `Gemma2ForCausalLM.forward` in transformers.
    cap = getattr(model.config.text_config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def decode_prefix(model: Any, images: Tensor, ids: Sequence[int]) -> Tensor:
    """(I, ...) KV cache of the decoder for the prefix of rows, for `generate`.

    Args:
        ids: tokens of the prefix, including all image tokens.
    """
    return _stages(model).decode_prefix(model, images, ids)


def continues_prefix(model: Any, settings: Mapping[str, Any]) -> bool:
    """Whether `generate` can continue from `decode_prefix` with unchanged output."""
    shares = family_of(model.config.model_type).shares_prefix(model.config)
    return shares and _stages(model).continues_prefix(model, settings)


def generate(model: Any, rows: Mapping[str, Tensor], *, images: Tensor, **settings: Any) -> Any:
    """New tokens that `transformers` generates after each row.

    Args:
        rows: as in `embed_rows`, with `attention_mask` (B, L), padded on the left or, if they begin
            with image tokens, after some of those.
        images: (B, ...) from `encode_features`, one per row.
        settings: generation settings. If `continues_prefix`, also `prefixes`, one of
            `decode_prefix` per row, and `prefix_tokens`: number of their tokens to use. Rows begin
            with these, then padding.

    Returns:
        New tokens (B * num_return_sequences, T), or transformers' output with these as `sequences`
        if `return_dict_in_generate` is set.
    """
    return _stages(model).generate(model, rows, images=images, **settings)


def _stages(model: Any) -> Any:
    return _module(model.config.model_type)


@functools.cache
def _module(model_type: str) -> Any:
    """A family's module with the functions above, those of a prefix if rows share one, and
    `read_images` if text and image are fused after the decoder.
    """
    return importlib.import_module(family_of(model_type).stages)
