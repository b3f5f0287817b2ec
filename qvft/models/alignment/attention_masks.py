"""Attention masks of the alignment objectives ITC, ITM and ITG.

The input is the query tokens, then the text. Row i of a mask is what position i attends to.
Shape letters: B rows, Q query tokens, T text tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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
