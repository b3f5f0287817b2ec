"""A Q-Former whose self-attention and feed-forward layers start from a BERT.

As BLIP-2's started from BERT-base: cross-attention and query tokens are new. Source: BLIP-2, arXiv
2301.12597, section 3.1; LAVIS, lavis/models/blip2_models/blip2.py, `init_Qformer`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import BertConfig, Blip2QFormerConfig, Blip2QFormerModel

UNUSED = re.compile(r"pooler\.|embeddings\.(?!LayerNorm)")
"""BERT's words and pooler; `model.text_branch` takes the words from the same checkpoint."""


def qformer_config(bert: BertConfig, *, vision_width: int, frequency: int) -> Blip2QFormerConfig:
    """Configuration of a Q-Former as wide and deep as a BERT.

    Args:
        frequency: a layer out of so many has cross-attention.
    """
    return Blip2QFormerConfig(
        vocab_size=bert.vocab_size,
        hidden_size=bert.hidden_size,
        num_hidden_layers=bert.num_hidden_layers,
        num_attention_heads=bert.num_attention_heads,
        intermediate_size=bert.intermediate_size,
        hidden_act=bert.hidden_act,
        max_position_embeddings=bert.max_position_embeddings,
        layer_norm_eps=bert.layer_norm_eps,
        initializer_range=bert.initializer_range,
        cross_attention_frequency=frequency,
        encoder_hidden_size=vision_width,
    )


def qformer_state(bert: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the Q-Former's query path that a `BertModel`'s state dict has."""
    state: dict[str, Tensor] = {}
    for key, weight in bert.items():
        name = re.sub(r"^embeddings\.LayerNorm\.", "layernorm.", key)
        name = re.sub(r"(layer\.\d+)\.(intermediate|output)\.", r"\1.\2_query.", name)
        name = name.replace(".attention.self.", ".attention.attention.")
        if not UNUSED.match(name):
            state[name] = weight
    return state


def new_qformer(
    config: Blip2QFormerConfig, bert: Mapping[str, Tensor], *, seed: int
) -> Blip2QFormerModel:
    """The Q-Former: BERT's weights, and cross-attention initialised with `seed`.

    A layer's cross-attention ends in the LayerNorm that its self-attention ends in, so that the
    following layer gets inputs of the size that it was trained with.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Blip2QFormerModel(config)
    missing, unexpected = model.load_state_dict(qformer_state(bert), strict=False)
    assert not unexpected, unexpected
    assert all(".crossattention." in key for key in missing), missing
    for layer in model.encoder.layer:
        if layer.has_cross_attention:
            own = layer.attention.output.LayerNorm.state_dict()
            layer.crossattention.output.LayerNorm.load_state_dict(own)
    return model.eval()


def new_queries(config: Blip2QFormerConfig, count: int, *, seed: int) -> Tensor:
    """Query tokens (1, count, width) from a normal distribution, as in LAVIS."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, count, config.hidden_size)
    return config.initializer_range * torch.randn(shape, generator=generator)
