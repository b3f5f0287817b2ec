"""Configurations of published vision towers and decoders, to count a QVision without a download.

Sources: config.json and preprocessor_config.json of each hub repository; CLIP, arXiv 2103.00020;
SigLIP, arXiv 2303.15343; SigLIP 2, arXiv 2502.14786; DINOv2, arXiv 2304.07193; SmolLM2, arXiv
2502.02737.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    CLIPConfig,
    Dinov2Config,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    Qwen3Config,
    SiglipConfig,
)

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.published import CLIP, GPT_NEO


def reference_qvision(vision: str, decoder: str) -> QVisionConfig | None:
    """The geometry of a QVision of two published checkpoints; None if either is not listed."""
    if vision not in _TOWERS or decoder not in _DECODERS:
        return None
    text = _DECODERS[decoder]()
    return QVisionConfig(_TOWERS[vision](), text, qformer_hidden_size=text.hidden_size)


def _siglip(words: int) -> SiglipConfig:
    # Both towers are 768 wide with 12 blocks, which are the class's defaults.
    return SiglipConfig(vision_config={}, text_config={"vocab_size": words})


_TOWERS: dict[str, Callable[[], PretrainedConfig]] = {
    CLIP: CLIPConfig,
    "google/siglip-base-patch16-224": lambda: _siglip(32_000),
    "google/siglip2-base-patch16-224": lambda: _siglip(256_000),
    # Stored for 518 pixels; its image processor makes 224.
    "facebook/dinov2-base": lambda: Dinov2Config(image_size=224, patch_size=14),
}


def qwen3_0_6b() -> Qwen3Config:
    """Qwen/Qwen3-0.6B, whose vocabulary has rows to spare for added tokens."""
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )


_SMOLLM2: dict[str, Any] = {
    "vocab_size": 49_152 + 2,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_DECODERS: dict[str, Callable[[], Any]] = {
    GPT_NEO: lambda: QVisionConfig().text_config,
    "openai-community/gpt2": lambda: GPT2Config(vocab_size=50_257 + 2),
    "HuggingFaceTB/SmolLM2-135M": lambda: LlamaConfig(**_SMOLLM2),
    "Qwen/Qwen3-0.6B": qwen3_0_6b,
}
"""With rows for `<START>` and `<END>`."""
