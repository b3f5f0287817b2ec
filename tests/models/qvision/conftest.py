"""Small QVision models of every kind of tower and decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    GPT2Config,
    GPTNeoConfig,
    OPTConfig,
    PretrainedConfig,
    SiglipConfig,
    SiglipVisionConfig,
)

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration

VOCABULARY = 61
# About 1 / sqrt(3 * width), as 0.02 is for widths near 1,000: the image has to be felt.
INITIALIZER_RANGE = 0.1
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
CLIP_TEXT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    **SPECIAL,
}


def vision_config(kind: str) -> PretrainedConfig:
    """A tower of 4 x 4 patches."""
    clip_vision = {**TOWER, "initializer_range": INITIALIZER_RANGE}
    return {
        "clip": lambda: CLIPConfig(
            vision_config=clip_vision, text_config=CLIP_TEXT, projection_dim=12
        ),
        "clip_vision_model": lambda: CLIPVisionConfig(**clip_vision),
        "siglip": lambda: SiglipConfig(
            vision_config=TOWER, text_config={**CLIP_TEXT, "projection_size": 16}
        ),
        "siglip_vision_model": lambda: SiglipVisionConfig(**TOWER),
    }[kind]()


def text_config(kind: str) -> PretrainedConfig:
    """A decoder 32 wide; GPT-Neo's second block sees 4 tokens, OPT's embeddings are 16 wide."""
    return {
        "gpt_neo": lambda: GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
            max_position_embeddings=48,
            initializer_range=INITIALIZER_RANGE,
            **SPECIAL,
        ),
        "opt": lambda: OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            word_embed_proj_dim=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=64,
            max_position_embeddings=48,
            dropout=0.0,
            init_std=INITIALIZER_RANGE,
            **SPECIAL,
        ),
        "gpt2": lambda: GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=48,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            initializer_range=INITIALIZER_RANGE,
            **SPECIAL,
        ),
    }[kind]()


def small_config(
    vision: str = "clip_vision_model", text: str = "gpt_neo", **changes: Any
) -> QVisionConfig:
    """A configuration of 6 query tokens and the context token."""
    fields = {
        "qformer_hidden_size": 16 if text == "opt" else 32,
        "qformer_num_heads": 4,
        "qformer_dropout": 0.0,
        "num_query_tokens": 6,
        "initializer_range": INITIALIZER_RANGE,
    }
    return QVisionConfig(vision_config(vision), text_config(text), **{**fields, **changes})


@pytest.fixture(scope="session")
def make_config() -> Callable[..., QVisionConfig]:
    """`small_config`."""
    return small_config


@pytest.fixture(scope="session")
def make_model() -> Callable[..., QVisionForConditionalGeneration]:
    """A function that draws a small model in evaluation mode; equal seeds, equal weights."""

    def make(*kinds: str, seed: int = 0, **changes: Any) -> QVisionForConditionalGeneration:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return QVisionForConditionalGeneration(small_config(*kinds, **changes)).eval()

    return make


@pytest.fixture
def pixels() -> Tensor:
    """Three normalised images (3, 3, 16, 16)."""
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ids() -> Tensor:
    """Three rows of nine tokens, none of them special: longer than GPT-Neo's window."""
    return torch.randint(3, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(2))
