"""Packing settings of a model: packed row length, and whether rows share their prefix."""

from __future__ import annotations

import sys
from typing import Any

from qvft.data.packing import Packer
from qvft.models.decoders import decoder_of, is_encoder_decoder


def packer_for(config: Any, *, shares: bool) -> Packer:
    """Packing settings for a model's configuration.

    Attention to masked positions is wasted: K / (6 D) of the work of a decoder of width D per token
    in a packed row of length K. K = D / 5, 512 for OPT-2.7B, makes it a thirtieth. GPT-Neo has its
    own mask, which no packed row may exceed, and windows in it, in which rows stay whole. In an
    encoder-decoder, the rows of a prompt are packed.

    Args:
        shares: whether the rows of an owner have equal decoder inputs where their tokens are equal.
    """
    text = config.text_config
    budget = max(1, text.hidden_size // 5)
    shares = shares and decoder_of(config).local_window is None
    most = sys.maxsize if shares else getattr(text, "max_position_embeddings", sys.maxsize)
    return Packer(shares, min(budget, most), most, row_per_owner=is_encoder_decoder(config))
