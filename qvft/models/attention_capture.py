"""Captures attention weights of a forward pass with hooks, for every model family.

Attention kernels such as sdpa do not return weights, so the model is switched to eager attention
for the pass.

Shape letters: B rows, L row length, K things read, Q query tokens, P patches, W Q-Former width,
N layers in which the text reads, M cross-attention layers of the Q-Former.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Attention:
    """Attention weights of a forward pass, averaged over heads, in float32; rows sum to 1.

    Attributes:
        text: (N, B, L, K) from each position of a row to each of its K keys.
        is_query: (B, K) which keys are query tokens: Q in each row, in the Q-Former's order.
        cross: (M, B, Q, P) from each query token to the patches, row by row from the top left, or
            (M, B, Q, P + 1) with the class token in front.
        has_class_token: whether the class token is in `cross`.
        grid: rows and columns of patches.
        queries: (B, Q, W) query outputs of the Q-Former.
        reading: description of `text`.
        limit: caveat for heatmaps of `text`.
        text_layers: (N,) layers in which the text attends to them, from 0.
        cross_layers: (M,) Q-Former layers with cross-attention to the image, from 0.
        features: (B, P, W) patches, if they share a space with the queries, so that cosine
            similarities are meaningful; the first query is then a context token.
    """

    text: Tensor
    is_query: Tensor
    cross: Tensor
    has_class_token: bool
    grid: tuple[int, int]
    queries: Tensor
    reading: str
    limit: str
    text_layers: tuple[int, ...]
    cross_layers: tuple[int, ...]
    features: Tensor | None = None


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Context manager: eager attention in a model and all nested models.

    Weights are not touched, so quantized ones stay valid.
    """
    before = attention_kernels(model)
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        # Each by itself: nested models may have other kernels.
        for name, kernel in before.items():
            cast(PreTrainedModel, model.get_submodule(name)).set_attn_implementation({"": kernel})


def attention_kernels(model: PreTrainedModel) -> dict[str, str]:
    """Attention kernel by module name, of the model ("") and each nested model, outer first."""
    return {
        name: module.config._attn_implementation
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel)
    }


@contextmanager
def output_hook(module: nn.Module, callback: Callable[[Any], None]) -> Iterator[None]:
    """Context manager: passes a module's output to `callback`."""
    handle = module.register_forward_hook(lambda module, inputs, output: callback(output))
    try:
        yield
    finally:
        handle.remove()


def mean_over_heads(weights: Tensor) -> Tensor:
    """Mean over heads (B, L, K) in float32 of attention weights (B, heads, L, K)."""
    return weights.float().mean(dim=1)
