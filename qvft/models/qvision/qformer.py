"""QVision's Q-Former: queries attend to the image; the decoded text attends to the queries.

Module names are those of the published checkpoint.

Shape letters: I images, B rows, L positions, P patches, Q visual tokens (the context token and the
query tokens), D width, H heads.

Weights, with D the width: each attention has four square projections with bias, 4 D^2 + 4 D; each
feed-forward layer is 8 D^2 + 5 D at a factor of 4; a norm is 2 D.

    tokens       Q D
    projections  query (never used), key, value           3 D^2 +  3 D
    a block      2 attentions, 2 feed-forward, 4 norms   24 D^2 + 26 D
    reading      1 attention, 1 feed-forward, 2 norms    12 D^2 + 13 D, and cross_scale

With D = 1024, two blocks and Q = 65: 63 D^2 + 68 D + 65 D + 1 = 66,196,481, published as 66.20 M.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, scaled_dot_product_attention

from qvft.models.qvision.configuration import QVisionConfig

BLOCK_NORM_EPS = 1e-6
READING_NORM_EPS = 1e-5


class QVisionAttention(nn.Module):
    """Multi-head attention whose keys and values can be computed once and reused.

    Weights are named and stacked as those of `nn.MultiheadAttention`: query, key and value in
    thirds of `in_proj_weight` (3 D, D) and `in_proj_bias` (3 D,).
    Source: Vaswani et al., arXiv 1706.03762, section 3.2.
    """

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__()
        width = config.qformer_hidden_size
        self.heads = config.qformer_num_heads
        self.dropout = config.qformer_dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def memory(self, keys: Tensor, values: Tensor) -> Tensor:
        """Projected keys and values (B, 2, H, S, D / H) of two (B, S, D)."""
        return torch.stack([self._projected(1, keys), self._projected(2, values)], dim=1)

    def forward(
        self, hidden: Tensor, memory: Tensor, *, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Output of attention from `hidden` (B, L, D) to `memory`: (B, L, D), and weights (B, H, L,
        S) on request.
        """
        query = self._projected(0, hidden)
        keys, values = memory.unbind(dim=1)
        weights = None
        if output_attentions:
            scores = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
            weights = scores.softmax(dim=-1)
            read = dropout(weights, self.dropout, self.training) @ values
        else:
            rate = self.dropout if self.training else 0.0
            read = scaled_dot_product_attention(query, keys, values, dropout_p=rate)
        return self.out_proj(read.transpose(1, 2).flatten(2)), weights

    def _projected(self, third: int, hidden: Tensor) -> Tensor:
        """(B, S, D) through a third of the projection, (B, H, S, D / H)."""
        weight = self.in_proj_weight.chunk(3)[third]
        bias = self.in_proj_bias.chunk(3)[third]
        return linear(hidden, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _feed_forward(config: QVisionConfig) -> nn.Sequential:
    """Two linear layers with GELU between and dropout behind each."""
    width = config.qformer_hidden_size
    inner = config.qformer_ffn_factor * width
    return nn.Sequential(
        nn.Linear(width, inner),
        nn.GELU(),
        nn.Dropout(config.qformer_dropout),
        nn.Linear(inner, width),
        nn.Dropout(config.qformer_dropout),
    )


class QVisionQFormer(nn.Module):
    """Everything between patch features and language-model head except the decoder.

    Each block is self-attention, feed-forward, cross-attention to the patches, feed-forward;
    pre-norm, with residual connections.
    """

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__()
        width, blocks = config.qformer_hidden_size, range(config.qformer_num_blocks)
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, width))
        self.img_context = nn.Parameter(torch.empty(1, 1, width))
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        self.self_attention_layers = nn.ModuleList(QVisionAttention(config) for _ in blocks)
        self.cross_attention_layers = nn.ModuleList(QVisionAttention(config) for _ in blocks)
        self.layer_norms = nn.ModuleList(
            nn.LayerNorm(width, eps=BLOCK_NORM_EPS) for _ in range(4 * len(blocks))
        )
        self.ffn_layers = nn.ModuleList(_feed_forward(config) for _ in range(2 * len(blocks)))
        self.decoder_cross_attn = QVisionAttention(config)
        self.decoder_cross_attn_norm = nn.LayerNorm(width, eps=READING_NORM_EPS)
        self.decoder_cross_attn_ffn = _feed_forward(config)
        self.decoder_cross_attn_norm2 = nn.LayerNorm(width, eps=READING_NORM_EPS)
        self.cross_scale = nn.Parameter(torch.ones(1))
        self.token_dropout = nn.Dropout(config.qformer_dropout)
        self.output_dropout = nn.Dropout(config.qformer_dropout)

    @property
    def dtype(self) -> torch.dtype:
        return self.query_tokens.dtype

    def forward(
        self, features: Tensor, *, output_attentions: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Visual tokens (I, Q, D) of patch features (I, P, D), the context token first.

        Keys and values of the features are projected once for all blocks. The second output is (I,
        H, Q, P) per block if attentions are requested.
        """
        keys, values = self.key_proj(features), self.value_proj(features)
        states = torch.cat([self.img_context, self.query_tokens], dim=1)
        if self.query_proj.weight.requires_grad and torch.is_grad_enabled():
            # DDP needs a gradient of every trained weight: here it is 0.
            states = states + 0.0 * (self.query_proj.weight.sum() + self.query_proj.bias.sum())
        states = states.expand(len(features), -1, -1)
        cross_weights = []
        for block in range(len(self.self_attention_layers)):
            self_attention = cast(QVisionAttention, self.self_attention_layers[block])
            cross_attention = cast(QVisionAttention, self.cross_attention_layers[block])
            norms = self.layer_norms[4 * block : 4 * block + 4]
            normed = norms[0](states)
            states = states + self_attention(normed, self_attention.memory(normed, normed))[0]
            states = states + self.ffn_layers[2 * block](norms[1](states))
            read, weights = cross_attention(
                norms[2](states),
                cross_attention.memory(keys, values),
                output_attentions=output_attentions,
            )
            states = states + read
            states = states + self.ffn_layers[2 * block + 1](norms[3](states))
            if weights is not None:
                cross_weights.append(weights)
        return states, tuple(cross_weights)

    def read(
        self, hidden: Tensor, memory: Tensor, *, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states (B, L, D) after cross-attention to their image, for the language-model
        head.

        Args:
            memory: (B, 2, H, Q, D / H) from `decoder_cross_attn.memory`.

        Returns:
            (B, L, D), and attention weights (B, H, L, Q) if requested.
        """
        read, weights = self.decoder_cross_attn(
            self.decoder_cross_attn_norm(hidden), memory, output_attentions=output_attentions
        )
        hidden = hidden + self.cross_scale * read
        hidden = hidden + self.decoder_cross_attn_ffn(self.decoder_cross_attn_norm2(hidden))
        return self.output_dropout(hidden), weights
