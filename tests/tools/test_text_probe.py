"""The text-only probe of a decoder: transformers' own loss, on prose."""

from __future__ import annotations

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from tools.real_parts.text_probe import SHORTEST, losses, paragraphs


def test_losses_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=50,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        word_embed_proj_dim=16,
    )
    decoder = OPTForCausalLM(config).eval()
    rows = [torch.randint(3, 50, (length,)) for length in (5, 20)]
    found, likely = losses(decoder, rows)
    for value, row in zip(found, rows, strict=True):
        with torch.no_grad():
            own = decoder(row[None], labels=row[None]).loss
        assert value == pytest.approx(float(own), abs=1e-6)
    assert len(likely) == 4 + 19


def test_paragraphs_are_prose() -> None:
    texts = paragraphs()
    assert len(texts) > 100
    for text in texts:
        assert len(text) > SHORTEST / 2
        assert "\n" not in text
        assert "::=" not in text
