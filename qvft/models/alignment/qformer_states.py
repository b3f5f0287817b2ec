"""Runs the shared Q-Former over queries, over text, and over both under a mask.

Self-attention is shared; only queries cross-attend to the image; each modality has its own
feed-forward layers. Everything runs in the Q-Former's dtype.
Shape letters: I images, N rows, P patches, Q query tokens, T text tokens, D Q-Former width,
E embedding width, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint
from transformers import Blip2ForConditionalGeneration, Blip2QFormerModel
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerLayer

from qvft.models.alignment.heads import AlignmentHeads

Kind = Literal["unimodal", "bidirectional", "multimodal_causal"]


def pattern(kind: Kind, *, queries: int, tokens: int, device: torch.device | None = None) -> Tensor:
    """Attention mask of an objective without padding, (Q + T, Q + T) bool.

    `unimodal` (ITC): queries see queries, text sees text.
    `bidirectional` (ITM): everything sees everything.
    `multimodal_causal` (ITG): queries see queries; a text token sees the queries, the text before
    it and itself.

    Source: BLIP-2, arXiv 2301.12597, section 3.2 and figure 2.
    """
    is_text = torch.arange(queries + tokens, device=device) >= queries
    reader, read = is_text[:, None], is_text[None, :]
    if kind == "unimodal":
        return reader == read
    if kind == "bidirectional":
        return torch.ones_like(reader & read)
    earlier = torch.ones(len(is_text), len(is_text), dtype=torch.bool, device=device).tril()
    return ~read | (reader & earlier)


def visibility(kind: Kind, *, queries: int, text_mask: Tensor) -> Tensor:
    """Attention mask of a padded batch, (B, Q + T, Q + T) bool.

    Nothing attends to padding. Outputs at padding positions are meaningless.

    Args:
        text_mask: (B, T), 1 at tokens, 0 at padding.
    """
    rows, tokens = text_mask.shape
    is_token = torch.cat([text_mask.new_ones(rows, queries), text_mask], dim=1).bool()
    visible = pattern(kind, queries=queries, tokens=tokens, device=text_mask.device)
    return visible & is_token[:, None, :]


def text_states(
    model: Blip2ForConditionalGeneration,
    heads: AlignmentHeads,
    *,
    input_ids: Tensor,
    text_mask: Tensor,
) -> Tensor:
    """Text outputs (N, T, D) without queries: the uni-modal mask."""
    seen = visibility("unimodal", queries=0, text_mask=text_mask)
    return _run(model.qformer, heads, heads.embeddings(input_ids), seen, None, 0)


def joint_states(
    model: Blip2ForConditionalGeneration,
    heads: AlignmentHeads,
    *,
    features: Tensor,
    input_ids: Tensor,
    text_mask: Tensor,
    kind: Kind,
) -> Tensor:
    """Outputs (N, Q + T, D) of queries and text together under a mask of `visibility`.

    Args:
        features: (N, P, width) ViT features of each row's image.
        input_ids, text_mask: (N, T), padded on the right.
    """
    queries = model.query_tokens.expand(len(features), -1, -1)
    embeds = torch.cat([queries, heads.embeddings(input_ids).to(queries.dtype)], dim=1)
    seen = visibility(kind, queries=queries.shape[1], text_mask=text_mask)
    return _run(model.qformer, heads, embeds, seen, features, queries.shape[1])


def image_embeddings(heads: AlignmentHeads, states: Tensor) -> Tensor:
    """Unit vectors (I, Q, E) float32 of the query outputs (I, Q, D), one per query."""
    return normalize(heads.vision_projection(states).float(), dim=-1)


def text_embeddings(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads, **texts: Tensor
) -> Tensor:
    """Unit vectors (N, E) float32 of texts, as for `text_states`, from their first token."""
    states = text_states(model, heads, **texts)
    return normalize(heads.text_projection(states[:, 0]).float(), dim=-1)


def matching_logits(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads, **rows: Tensor
) -> Tensor:
    """Logits (N, 2) float32, "no match" and "match", of image-text rows, as for `joint_states`.

    Mean over the queries.
    """
    states = joint_states(model, heads, kind="bidirectional", **rows)
    queries = states[:, : model.query_tokens.shape[1]]
    return heads.itm_head(queries).float().mean(dim=1)


def generation_logits(
    model: Blip2ForConditionalGeneration,
    heads: AlignmentHeads,
    *,
    features: Tensor,
    input_ids: Tensor,
    text_mask: Tensor,
) -> Tensor:
    """Next-token logits (N, T, V), from the image and the text up to each token.

    `heads` must have its text-generation head. Shapes of the arguments as in `joint_states`.
    """
    assert heads.lm_head is not None, "built without text_generation"
    if heads.generation_start_id is not None:
        start = input_ids.new_full((len(input_ids), 1), heads.generation_start_id)
        input_ids = torch.cat([start, input_ids[:, 1:]], dim=1)
    states = joint_states(
        model,
        heads,
        features=features,
        input_ids=input_ids,
        text_mask=text_mask,
        kind="multimodal_causal",
    )
    text = states[:, model.query_tokens.shape[1] :]
    return heads.lm_head(text, heads.embeddings.word_embeddings.weight)


def _run(
    qformer: Blip2QFormerModel,
    heads: AlignmentHeads,
    embeds: Tensor,
    seen: Tensor,
    features: Tensor | None,
    queries: int,
) -> Tensor:
    """Outputs (N, L, D) of embedded input (N, L, D) of which the first `queries` are queries."""
    if len(embeds) == 0:
        # Attention cannot run on an empty batch, but DDP needs its weights in the graph of every
        # process.
        seen = seen.new_ones(1, *seen.shape[1:])
        features = None if features is None else _one_row(features)
        return _run(qformer, heads, _one_row(embeds), seen, features, queries)[:0]
    hidden = qformer.dropout(qformer.layernorm(embeds.to(qformer.layernorm.weight.dtype)))
    if features is not None:
        features = features.to(hidden.dtype)
    mask = _attention_mask(qformer, seen[:, None], hidden.dtype)
    for layer, text_layer in zip(qformer.encoder.layer, heads.text_layers, strict=True):
        arguments = (layer, text_layer, hidden, mask, features, queries)
        # The layer's own `__call__`, with transformers' gradient checkpointing, lacks the text
        # part.
        if getattr(layer, "gradient_checkpointing", False) and layer.training:
            hidden = checkpoint(_layer, *arguments, use_reentrant=False)
        else:
            hidden = _layer(*arguments)
    return hidden


def _layer(
    layer: Blip2QFormerLayer,
    text_layer: nn.Module,
    hidden: Tensor,
    mask: Tensor,
    features: Tensor | None,
    queries: int,
) -> Tensor:
    """One Q-Former layer over queries and text (N, L, D).

    Source: BLIP-2, arXiv 2301.12597, section 3.1; `Blip2QFormerLayer` of transformers.
    """
    attended = layer.attention(hidden, attention_mask=mask)
    text = text_layer(attended[:, queries:])
    if queries == 0:
        return text
    image = attended[:, :queries]
    if layer.has_cross_attention:
        image = layer.crossattention(image, encoder_hidden_states=features)
    return torch.cat([layer.feed_forward_chunk_query(image), text], dim=1)


def _one_row(nothing: Tensor) -> Tensor:
    """One row of zeros (1, L, D) instead of no rows (0, L, D), connected to their graph."""
    return pad(nothing, (0, 0, 0, 0, 0, 1))


def _attention_mask(qformer: Blip2QFormerModel, seen: Tensor, dtype: torch.dtype) -> Tensor:
    """`seen` (N, 1, L, L) as the Q-Former's attention kernel takes it: bool, or for eager attention
    additive.
    """
    if qformer.config._attn_implementation != "eager":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )
