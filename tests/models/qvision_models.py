"""Small configurations of QVision with every kind of tower and decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipConfig,
    SiglipVisionConfig,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qvft.models.decoders import DECODERS, QVISION
from qvft.models.image_size import config_with_image_size
from qvft.models.qvision.components import components_config, from_components
from qvft.models.qvision.configuration import VISION_TYPES, QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.qvision.processing import default_image_size

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
DINOV2 = {
    **{key: value for key, value in TOWER.items() if key != "intermediate_size"},
    "mlp_ratio": 2,
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
        "dinov2": lambda: Dinov2Config(**DINOV2),
        "dinov2_with_registers": lambda: Dinov2WithRegistersConfig(**DINOV2, num_register_tokens=3),
    }[kind]()


LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
    "initializer_range": INITIALIZER_RANGE,
    "tie_word_embeddings": True,
    **SPECIAL,
}
GEMMA = LLAMA | {"head_dim": 8}
LOCAL = {"sliding_window": 4}
SCALED = {"query_pre_attn_scalar": 8}


def text_config(kind: str) -> PretrainedConfig:
    """A decoder 32 wide; windows of local attention are 4 tokens, OPT's embeddings are 16 wide, the
    heads of Llama and Mistral not tied, Gemma 2's logits capped where it is felt.
    """
    return {
        "llama": lambda: LlamaConfig(**LLAMA | {"tie_word_embeddings": False}),
        "qwen2": lambda: Qwen2Config(**LLAMA),
        "qwen3": lambda: Qwen3Config(**LLAMA, head_dim=8),
        "mistral": lambda: MistralConfig(**LLAMA | LOCAL | {"tie_word_embeddings": False}),
        "gemma": lambda: GemmaConfig(**GEMMA),
        "gemma2": lambda: Gemma2Config(**GEMMA | LOCAL | SCALED, final_logit_softcapping=2.0),
        "gemma3_text": lambda: Gemma3TextConfig(**GEMMA | LOCAL | SCALED),
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


DECODER_TYPES = tuple(name for name, row in DECODERS.items() if QVISION in row.families)
PAIRS = (
    *((vision, "gpt_neo") for vision in VISION_TYPES),
    *(("clip_vision_model", text) for text in DECODER_TYPES if text != "gpt_neo"),
)
"""Every tower and every decoder once, together with a common other part."""


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


def write_tower(folder: Path, kind: str, *, side: int = 16, **fields: Any) -> Path:
    """A vision model with fresh weights, and its image processor.

    Args:
        side: pixels per side of the image processor's images.
        fields: of the vision model's configuration that differ from `vision_config`.
    """
    config: Any = vision_config(kind)
    for name, value in fields.items():
        setattr(getattr(config, "vision_config", config), name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    square = {"height": side, "width": side}
    images: Any = {
        "clip": lambda: CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square),
        "sigl": lambda: SiglipImageProcessorPil(size=square),
        "dino": lambda: BitImageProcessorPil(
            size={"shortest_edge": side * 5 // 4}, crop_size=square
        ),
    }[kind[:4]]()
    images.save_pretrained(folder)
    return folder


def of_components(
    vision: str, decoder: str, *, seed: int = 0, **geometry: Any
) -> QVisionForConditionalGeneration:
    """The model of a tower and a decoder, at the image size of the tower's image processor."""
    config = components_config(vision, decoder, **geometry)
    side = default_image_size(vision, config.vision_config.model_type)
    sized = config if side is None else config_with_image_size(config, side)
    return from_components(vision, decoder, sized, seed=seed)
