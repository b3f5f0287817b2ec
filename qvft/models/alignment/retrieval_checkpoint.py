"""Loads a `Blip2ForImageTextRetrieval` checkpoint: exported by qvft, or from the hub."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from qvft.models.alignment.heads import START_TEMPERATURE, AlignmentHeads
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.families import FAMILIES, RETRIEVAL_CLASS

_HEADS = ("embeddings", "vision_projection", "text_projection", "itm_head")


def retrieval_base(base: BaseCheckpoint) -> BaseCheckpoint:
    """The base to load with `load_model`: family `blip2` with the retrieval class, which has its
    ViT, Q-Former and query tokens, and heads instead of a decoder."""
    blip2 = FAMILIES["blip2"]
    shared = {part: blip2.parts[part] for part in ("vision", "qformer", "query_tokens")}
    parts = {**shared, **{name: name for name in _HEADS}}
    return replace(base, family=replace(blip2, model_class=RETRIEVAL_CLASS, parts=parts))


def heads_of(model: Any) -> AlignmentHeads:
    """The heads of a `Blip2ForImageTextRetrieval`, which keeps its weights, cast to float32.

    The class has no temperature: it keeps its initial value, which no score depends on.
    """
    with torch.device("meta"):
        heads = AlignmentHeads(
            model.config.qformer_config, embedding_width=model.config.image_text_hidden_size
        )
    for name in _HEADS:
        setattr(heads, name, getattr(model, name))
    for text_layer, layer in zip(heads.text_layers, model.qformer.encoder.layer, strict=True):
        text_layer.intermediate, text_layer.output = layer.intermediate, layer.output
    heads.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE))
    return heads.float().eval()
