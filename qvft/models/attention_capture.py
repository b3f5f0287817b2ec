"""Captures attention weights of a forward pass with hooks, for every model family.

Attention kernels such as sdpa do not hand their weights out, so a model whose parts take one
attends eagerly for the pass and as before after it.

Shape letters: B rows, L row length, K things read, Q query tokens, P patches, W Q-Former width,
N layers in which the text reads, M cross-attention layers of the Q-Former.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Attention:
    """Attention weights of a pass, averaged over heads, in float32; rows sum to 1.

    Attributes:
        text: (N, B, L, K) from each position of a row to each of the K things that it reads.
        is_query: (B, K) which of them are query tokens: Q in each row, in the Q-Former's order.
        cross: (M, B, Q, P) from each query token to the patches, row by row from the top left, or
            (M, B, Q, P + 1) with the class token in front.
        has_class_token: whether the class token is in `cross`.
        grid: rows and columns of patches.
        queries: (B, Q, W) what the Q-Former made of the query tokens.
        reading: what `text` is, in words.
        limit: what else has to be known of `text` to read a map of it, in words.
        text_layers: (N,) numbers of the layers in which the text reads, from 0.
        cross_layers: (M,) numbers of the Q-Former's layers that look at the image, from 0.
        features: (B, P, W) the patches, where they and the queries lie in one space, so that the
            cosine of a query with a patch means something; the first query is a context token
            then.
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
    """Lets a model and all models in it attend eagerly, and afterwards as each did before.

    Weights are not touched, so that quantised ones stay as they are.
    """
    before = attention_kernels(model)
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        # From the outermost inwards, since setting a model sets those in it too.
        for name, kernel in before.items():
            model.get_submodule(name).set_attn_implementation(kernel)


def attention_kernels(model: PreTrainedModel) -> dict[str, str]:
    """Attention kernel by module name, of the model ("") and each model in it, outer ones first."""
    return {
        name: module.config._attn_implementation
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel)
    }


@contextmanager
def watched(module: nn.Module, watch: Callable[[Any], None]) -> Iterator[None]:
    """Shows what a module returns to `watch`."""
    handle = module.register_forward_hook(lambda module, inputs, output: watch(output))
    try:
        yield
    finally:
        handle.remove()


def over_heads(weights: Tensor) -> Tensor:
    """(B, L, K) in float32, of an attention module's weights (B, heads, L, K)."""
    return weights.float().mean(dim=1)
