"""QVision's Q-Former: query tokens gather the image, and the text reads it from them.

Shape letters: I images, B rows, L tokens, P patches, Q query tokens (and the context token),
D width, H heads.

Weights, with D the width: each attention has four square projections with bias, 4 D^2 + 4 D; each
feed-forward layer is 8 D^2 + 5 D at a factor of 4; a norm is 2 D.

    tokens       Q D
    projections  key, value, query                        3 D^2 +  3 D
    a block      2 attentions, 2 feed-forward, 4 norms   24 D^2 + 26 D
    text         1 attention, 1 feed-forward, 2 norms    12 D^2 + 13 D

With D = 1024, two blocks and Q = 65: 63 D^2 + 68 D + 65 D = 66,196,480, published as 66.20 M.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from qvft.models.qvision.configuration import QVisionConfig


def grid_positions(
    rows: int, columns: int, width: int, *, device: torch.device | None = None
) -> Tensor:
    """Sines and cosines of each patch's row and column, (rows * columns, width) float32.

    The first half of the width tells the row, the second the column; in each, sines come first.
    Source: Vaswani et al., arXiv 1706.03762, section 3.5, once for each axis in half of the width.
    """

    def count(number: int) -> Tensor:
        return torch.arange(number, dtype=torch.float32, device=device)

    frequencies = 10_000.0 ** -(count(width // 4) / (width // 4))
    halves = []
    for axis in torch.meshgrid(count(rows), count(columns), indexing="ij"):
        angles = axis.reshape(-1, 1) * frequencies
        halves += [angles.sin(), angles.cos()]
    return torch.cat(halves, dim=1)


class QVisionAttention(nn.Module):
    """Multi-head attention whose keys and values can be computed once and used often.

    Source: Vaswani et al., arXiv 1706.03762, section 3.2.
    """

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__()
        width = config.qformer_hidden_size
        self.heads = config.qformer_num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def memory(self, keys: Tensor, values: Tensor) -> Tensor:
        """Projected keys and values (B, 2, H, S, D / H) of two (B, S, D)."""
        pair = self._by_head(self.k_proj(keys)), self._by_head(self.v_proj(values))
        return torch.stack(pair, dim=1)

    def forward(
        self, hidden: Tensor, memory: Tensor, *, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """What each position of `hidden` (B, L, D) reads from `memory`: (B, L, D), and (B, H, L, S)
        how it weighs it where that is asked for."""
        query = self._by_head(self.q_proj(hidden))
        keys, values = memory.unbind(dim=1)
        weights = None
        if output_attentions:
            scores = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
            weights = scores.softmax(dim=-1)
            read = weights @ values
        else:
            read = scaled_dot_product_attention(query, keys, values)
        return self.out_proj(read.transpose(1, 2).flatten(2)), weights

    def _by_head(self, hidden: Tensor) -> Tensor:
        """(B, S, D) to (B, H, S, D / H)."""
        return hidden.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class QVisionFeedForward(nn.Sequential):
    """Two linear layers with GELU between."""

    def __init__(self, config: QVisionConfig) -> None:
        width = config.qformer_hidden_size
        inner = config.qformer_ffn_factor * width
        super().__init__(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class QVisionBlock(nn.Module):
    """Self-attention, feed-forward, cross-attention to the patches, feed-forward.

    Each has its own norm in front and is added to what it read.
    """

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__()
        width = config.qformer_hidden_size
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = QVisionAttention(config)
        self.self_ffn_norm = nn.LayerNorm(width)
        self.self_ffn = QVisionFeedForward(config)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = QVisionAttention(config)
        self.cross_ffn_norm = nn.LayerNorm(width)
        self.cross_ffn = QVisionFeedForward(config)
        self.dropout = nn.Dropout(config.qformer_dropout)

    def forward(
        self, states: Tensor, keys: Tensor, values: Tensor, *, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """States (I, Q, D) after this block, and (I, H, Q, P) where they looked if asked for."""
        own = self.self_norm(states)
        read, _ = self.self_attention(own, self.self_attention.memory(own, own))
        states = states + self.dropout(read)
        states = states + self.dropout(self.self_ffn(self.self_ffn_norm(states)))
        patches = self.cross_attention.memory(keys, values)
        read, weights = self.cross_attention(
            self.cross_norm(states), patches, output_attentions=output_attentions
        )
        states = states + self.dropout(read)
        states = states + self.dropout(self.cross_ffn(self.cross_ffn_norm(states)))
        return states, weights


class QVisionTextReader(nn.Module):
    """Token embeddings read the refined query tokens: one cross-attention, one feed-forward."""

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__()
        width = config.qformer_hidden_size
        self.norm = nn.LayerNorm(width)
        self.attention = QVisionAttention(config)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = QVisionFeedForward(config)
        self.dropout = nn.Dropout(config.qformer_dropout)

    def forward(
        self, tokens: Tensor, memory: Tensor, *, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, L, D) with what they read, and (B, H, L, Q) from where if asked for."""
        read, weights = self.attention(
            self.norm(tokens), memory, output_attentions=output_attentions
        )
        tokens = tokens + self.dropout(read)
        return tokens + self.dropout(self.ffn(self.ffn_norm(tokens))), weights


class QVisionQFormer(nn.Module):
    """All that stands between the patch features and the decoder's input."""

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__()
        width = config.qformer_hidden_size
        self.patch_grid = config.patch_grid
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, width))
        self.context_token = (
            nn.Parameter(torch.empty(1, 1, width)) if config.global_context_token else None
        )
        self.query_projection = nn.Linear(width, width)
        self.key_projection = nn.Linear(width, width)
        self.value_projection = nn.Linear(width, width)
        self.blocks = nn.ModuleList(QVisionBlock(config) for _ in range(config.qformer_num_blocks))
        self.text_reader = QVisionTextReader(config)

    @property
    def dtype(self) -> torch.dtype:
        return self.query_tokens.dtype

    def forward(
        self, features: Tensor, *, output_attentions: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Refined query tokens (I, Q, D) of patch features (I, P, D), the context token last.

        Positions are added to the features, whose keys and values are projected once for all
        blocks. The second value holds (I, H, Q, P) for each block where attentions are asked for.
        """
        positions = grid_positions(*self.patch_grid, features.shape[-1], device=features.device)
        features = features + positions.to(features.dtype)
        keys, values = self.key_projection(features), self.value_projection(features)
        learned = [self.query_tokens]
        if self.context_token is not None:
            learned.append(self.context_token)
        states = self.query_projection(torch.cat(learned, dim=1))
        states = states.expand(len(features), -1, -1)
        looks = []
        for block in self.blocks:
            states, weights = block(states, keys, values, output_attentions=output_attentions)
            if weights is not None:
                looks.append(weights)
        return states, tuple(looks)
