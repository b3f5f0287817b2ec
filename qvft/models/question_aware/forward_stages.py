"""Question-aware model's forward pass in stages; what it shares with BLIP-2 is in `blip2.py`.

Shape letters: I images, B rows, T question tokens, Q query tokens, P patches, W ViT width,
D decoder width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration

from qvft.models.blip2 import decode_hidden, encode_vision, generate_after, insert_prefix

__all__ = [
    "decode_hidden",
    "embed_rows",
    "encode_features",
    "encode_rows",
    "encode_vision",
    "generate",
    "query_states",
]


def encode_features(model: InstructBlipForConditionalGeneration, features: Tensor) -> Tensor:
    """Shared by the rows of an image: its ViT features (I, P + 1, W), unchanged."""
    return features


def embed_rows(
    model: InstructBlipForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    image_index: Tensor,
) -> Tensor:
    """The decoder's input (B, L, D); `rows` has input_ids and the Q-Former's inputs: of each row,
    or of each question, and `qformer_rows` (B,): the question of each row.
    """
    ids = rows["qformer_input_ids"]
    question = rows.get("qformer_rows")
    if question is None:
        question = torch.arange(len(image_index), device=image_index.device)
    prefix = encode_rows(
        model,
        images,
        image_index=image_index.new_zeros(len(ids)).scatter(0, question, image_index),
        qformer_input_ids=ids,
        qformer_attention_mask=rows["qformer_attention_mask"],
    )
    return insert_prefix(model, rows["input_ids"], prefix=prefix, image_index=question)


def encode_rows(
    model: InstructBlipForConditionalGeneration,
    features: Tensor,
    *,
    image_index: Tensor,
    qformer_input_ids: Tensor,
    qformer_attention_mask: Tensor,
) -> Tensor:
    """The visual prefix of each row (B, Q, D): Q-Former over queries and question, projection.

    A row whose mask is all zeros has no question: masked positions have weight zero, so its prefix
    is BLIP-2's. A training batch has at least one column, masked or not (T > 0): the text branch is
    then part of the graph, as DDP requires.

    Args:
        features: (I, P + 1, W) from `encode_vision`, each image once.
        image_index: (B,) which image each row belongs to.
        qformer_input_ids, qformer_attention_mask: (B, T), padded on the right, since a word's
            position is its column (transformers' processor, asked to pad prompts on the left, pads
            questions on the left too and moves every word); T may be 0.

    Source: BLIP-2, arXiv 2301.12597, section 4.3; the stages of
    `InstructBlipForConditionalGeneration.get_image_features` in transformers.
    """
    states = _query_outputs(model, features[image_index], qformer_input_ids, qformer_attention_mask)
    return model.language_projection(states.to(model.language_projection.weight.dtype))


def query_states(model: InstructBlipForConditionalGeneration, features: Tensor) -> Tensor:
    """Query outputs (I, Q, width) of ViT features (I, P + 1, W), without a question."""
    no_tokens = torch.zeros(len(features), 0, dtype=torch.long, device=features.device)
    return _query_outputs(model, features, no_tokens, no_tokens)


def _query_outputs(
    model: InstructBlipForConditionalGeneration,
    features: Tensor,
    qformer_input_ids: Tensor,
    qformer_attention_mask: Tensor,
) -> Tensor:
    """Query outputs (B, Q, width) of each row's features (B, P + 1, W) and question."""
    # transformers casts features for BLIP-2's Q-Former but not for this one.
    features = features.to(model.qformer.embeddings.layernorm.weight.dtype)
    rows, count = len(features), model.query_tokens.shape[1]
    ones = qformer_attention_mask.new_ones(rows, count)
    return model.qformer(
        input_ids=qformer_input_ids,
        attention_mask=torch.cat([ones, qformer_attention_mask], dim=1),
        query_embeds=model.query_tokens.expand(rows, -1, -1),
        encoder_hidden_states=features,
        encoder_attention_mask=ones.new_ones(features.shape[:-1]),
    ).last_hidden_state[:, :count]


def generate(
    model: InstructBlipForConditionalGeneration,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    **settings: Any,
) -> Any:
    """As `forward_stages.generate`: the decoder continues the embedded rows."""
    embeds = embed_rows(
        model, rows, images=images, image_index=torch.arange(len(images), device=images.device)
    )
    return generate_after(model, embeds, rows["attention_mask"], **settings)
