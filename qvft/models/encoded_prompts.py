"""Encoder states of prompts, which the decoder of an encoder-decoder (T5) attends to.

Shape letters: E prompts, P prompt tokens, D width, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class EncodedPrompts:
    """Prompts with their images, each encoded once.

    Attributes:
        states: (E, P, D). mask: (E, P) 1 at tokens.
        index: (B,) which prompt each row attends to.
    """

    states: Tensor
    mask: Tensor
    index: Tensor

    def in_order(self) -> EncodedPrompts:
        """For packed rows, of which each has all rows of one prompt."""
        return replace(self, index=torch.arange(len(self.states), device=self.index.device))


def decode_after(
    language_model: Any, embeds: Tensor, attention_mask: Tensor, prompts: EncodedPrompts
) -> Tensor:
    """As `forward_stages.decode_hidden`; positions are distances within a row.

    Source: `T5ForConditionalGeneration.forward` in transformers.
    """
    hidden = language_model.get_decoder()(
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        encoder_hidden_states=prompts.states[prompts.index],
        encoder_attention_mask=prompts.mask[prompts.index],
        use_cache=False,
    ).last_hidden_state
    config = language_model.config
    scaled = getattr(config, "scale_decoder_outputs", False)
    return hidden * config.d_model**-0.5 if scaled else hidden


def without_start(written: Any) -> Any:
    """What an encoder-decoder's `generate` returns, without the token that begins each text."""
    if isinstance(written, Tensor):
        return written[:, 1:]
    written.sequences = written.sequences[:, 1:]
    return written
