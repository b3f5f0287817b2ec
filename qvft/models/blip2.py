"""BLIP-2's forward pass in stages: encode, query, embed, decode.

Shape letters: I images, B rows, L row length, Q query tokens, P patches, D decoder width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, InstructBlipForConditionalGeneration

from qvft.errors import QvftError
from qvft.models.beam_search import beam_search, drops_done_rows
from qvft.models.forward_stages import EncodedPrompts
from qvft.models.prefix_cache import (
    CACHE,
    cache_from_prefixes,
    can_continue,
    keys_values,
    rows_per_prompt,
)

WithPrefix = Blip2ForConditionalGeneration | InstructBlipForConditionalGeneration
"""Classes whose decoder reads the visual prefix before the text."""


def encode_vision(model: WithPrefix, pixel_values: Tensor) -> Tensor:
    """ViT features (I, P + 1, width) of normalised images (I, 3, height, width).

    Without autograd if every ViT weight is frozen.
    """
    vision = model.vision_model
    trained = any(parameter.requires_grad for parameter in vision.parameters())
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        return vision(pixel_values=pixel_values).last_hidden_state


def encode_features(model: Blip2ForConditionalGeneration, features: Tensor) -> Tensor:
    """The visual prefix (I, Q, D) of ViT features: Q-Former over the queries, projection.

    Source: BLIP-2, arXiv 2301.12597, section 3; the stages of
    `Blip2ForConditionalGeneration.get_image_features` in transformers.
    """
    return language_prefix(model, query_states(model, features))


def query_states(model: Blip2ForConditionalGeneration, features: Tensor) -> Tensor:
    """Query outputs (I, Q, width) of ViT features (I, P + 1, width), without text.

    Input of the language projection and of the ITC projection.
    """
    features = features.to(model.query_tokens.dtype)
    mask = features.new_ones(features.shape[:-1], dtype=torch.long)
    queries = model.query_tokens.expand(features.shape[0], -1, -1)
    return model.qformer(
        query_embeds=queries, encoder_hidden_states=features, encoder_attention_mask=mask
    ).last_hidden_state


def language_prefix(model: Blip2ForConditionalGeneration, states: Tensor) -> Tensor:
    """The visual prefix (I, Q, D) of the query outputs (I, Q, width)."""
    return model.language_projection(states.to(model.language_projection.weight.dtype))


def embed_rows(
    model: Blip2ForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    image_index: Tensor,
) -> Tensor:
    """The decoder's input (B, L, D) of rows of tokens, with `encode_features` of their images."""
    return insert_prefix(model, rows["input_ids"], prefix=images, image_index=image_index)


def insert_prefix(
    model: WithPrefix, input_ids: Tensor, *, prefix: Tensor, image_index: Tensor
) -> Tensor:
    """The decoder's input (B, L, D): token embeddings, with the visual prefix at `<image>` tokens.

    Args:
        prefix: (I, Q, D) from `encode_features`.

    Raises:
        QvftError: a row does not have exactly Q image tokens, so its image would be ignored.
    """
    is_image = input_ids == model.config.image_token_id
    counts = is_image.sum(dim=1)
    if not bool((counts == prefix.shape[1]).all()):
        raise QvftError(
            f"rows have {sorted(set(counts.tolist()))} <image> tokens, each needs "
            f"{prefix.shape[1]}: the image would be ignored"
        )
    embeds = model.get_input_embeddings()(input_ids)
    visual = prefix[image_index].to(embeds.dtype)
    return embeds.masked_scatter(is_image.unsqueeze(-1), visual)


def decode_hidden(
    model: WithPrefix,
    embeds: Tensor,
    attention_mask: Tensor,
    *,
    position_ids: Tensor | None = None,
    prompts: EncodedPrompts | None = None,
) -> Tensor:
    """As `forward_stages.decode_hidden`."""
    if prompts is not None:
        return _decode_after(model.language_model, embeds, attention_mask, prompts)
    return model.language_model.get_decoder()(
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=False,
    ).last_hidden_state


def _decode_after(
    language_model: Any, embeds: Tensor, attention_mask: Tensor, prompts: EncodedPrompts
) -> Tensor:
    """As `forward_stages.decode_hidden`; positions are distances within a row.

    Source: `T5ForConditionalGeneration.forward` in transformers.
    """
    hidden = language_model.get_decoder()(
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        encoder_hidden_states=prompts.states[prompts.index],
        encoder_attention_mask=prompts.mask[prompts.index],
        use_cache=False,
    ).last_hidden_state
    config = language_model.config
    scaled = getattr(config, "scale_decoder_outputs", False)
    return hidden * config.d_model**-0.5 if scaled else hidden


def decode_prefix(
    model: Blip2ForConditionalGeneration, images: Tensor, ids: Sequence[int]
) -> Tensor:
    """As `forward_stages.decode_prefix`, from `prefix_cache.keys_values`."""
    embeds = insert_prefix(
        model,
        torch.tensor([ids], device=images.device).expand(len(images), -1),
        prefix=images,
        image_index=torch.arange(len(images), device=images.device),
    )
    return keys_values(model.language_model.get_decoder(), embeds)


def continues_prefix(model: Blip2ForConditionalGeneration, settings: Mapping[str, Any]) -> bool:
    """As `forward_stages.continues_prefix`."""
    return can_continue(model.language_model, settings)


def generate(
    model: Blip2ForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    prefixes: Sequence[Tensor] = (),
    prefix_tokens: int = 0,
    **settings: Any,
) -> Any:
    """As `forward_stages.generate`: the decoder continues the embedded rows.

    With a KV cache, transformers expects complete rows and skips the cached part.
    """
    embeds = embed_rows(
        model, rows, images=images, image_index=torch.arange(len(images), device=images.device)
    )
    if prefixes:
        decoder = model.language_model
        copies = 1 if drops_done_rows(decoder, settings) else rows_per_prompt(decoder, settings)
        settings[CACHE] = cache_from_prefixes(
            prefixes, tokens=prefix_tokens, rows_per_prompt=copies
        )
    return generate_after(model, embeds, rows["attention_mask"], **settings)


def generate_after(
    model: WithPrefix, embeds: Tensor, attention_mask: Tensor, **settings: Any
) -> Any:
    """New tokens that the decoder generates after embedded rows (B, L, D), or from prompts that its
    encoder reads.
    """
    if drops_done_rows(model.language_model, settings):
        settings["custom_generate"] = beam_search
    written = model.language_model.generate(
        inputs_embeds=embeds, attention_mask=attention_mask, **settings
    )
    return _without_start(written) if model.language_model.config.is_encoder_decoder else written


def _without_start(written: Any) -> Any:
    """What an encoder-decoder's `generate` returns, without the token that begins each text."""
    if isinstance(written, Tensor):
        return written[:, 1:]
    written.sequences = written.sequences[:, 1:]
    return written
