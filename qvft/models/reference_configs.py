"""Configurations of the published BLIP-2 models, to count parameters without a download.

Sources: config.json of each hub repository; BLIP-2, arXiv 2301.12597, section 4; OPT, arXiv
2205.01068, table 1; the Flan-T5-XL sizes of google/flan-t5-xl.
"""

from __future__ import annotations

import torch
from transformers import (
    Blip2Config,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    InstructBlipConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)

from qvft.models.families import family_of
from qvft.models.load import model_class
from qvft.models.question_aware.configuration import question_aware_config
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.published import CLIP, GPT_NEO

INITIALIZER_RANGE = 0.02
OPT_VOCABULARY = 50_304
"""OPT's 50,265 tokens and `<image>`, padded to a multiple of 64."""
OPT_IMAGE_TOKEN = 50_265
T5_IMAGE_TOKEN = 32_100
QVISION_CHECKPOINTS = (CLIP, GPT_NEO)
"""CLIP, and a GPT-Neo of 24 layers, 1,024 wide."""


def known_configs() -> dict[str, Blip2Config]:
    """Configurations by hub id: ViT-g/14 at 224 px, Q-Former 768 x 12 with 32 queries, decoder."""
    return {
        "Salesforce/blip2-opt-2.7b": _blip2(_opt(hidden_size=2560), image_token=OPT_IMAGE_TOKEN),
        "Salesforce/blip2-opt-6.7b": _blip2(_opt(hidden_size=4096), image_token=OPT_IMAGE_TOKEN),
        "Salesforce/blip2-flan-t5-xl": _blip2(_flan_t5_xl(), image_token=T5_IMAGE_TOKEN),
    }


def published_qvision(vision: str, decoder: str) -> QVisionConfig | None:
    """The published QVision's geometry for its two checkpoints; None for others."""
    return QVisionConfig() if (vision, decoder) == QVISION_CHECKPOINTS else None


def question_config(base: Blip2Config, text_branch: str) -> InstructBlipConfig | None:
    """The question-aware geometry of a published base and text branch; None for other branches.

    The vocabulary is the branch's words, `[DEC]` and `<image>`.
    """
    rows = {"Salesforce/blip2-itm-vit-g": 30_524, "bert-base-uncased": 30_523}
    if text_branch not in rows:
        return None
    return question_aware_config(base, word_rows=rows[text_branch], positions=512, pad_id=0)


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a configuration on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        return model_class(family_of(config.model_type))(config)


def _blip2(text: OPTConfig | T5Config, *, image_token: int) -> Blip2Config:
    # `Blip2VisionConfig` defaults to 1e-10, which makes a random model ignore the image.
    vision = Blip2VisionConfig(
        hidden_size=1408,
        intermediate_size=6144,
        num_hidden_layers=39,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        initializer_range=INITIALIZER_RANGE,
    )
    qformer = Blip2QFormerConfig(
        vocab_size=30_522,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        cross_attention_frequency=2,
        encoder_hidden_size=1408,
        initializer_range=INITIALIZER_RANGE,
    )
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=32,
        image_token_index=image_token,
        initializer_range=INITIALIZER_RANGE,
    )


def _opt(*, hidden_size: int) -> OPTConfig:
    """OPT-2.7B (2560) and OPT-6.7B (4096): 32 layers, 32 heads, four times the width inside."""
    return OPTConfig(
        vocab_size=OPT_VOCABULARY,
        hidden_size=hidden_size,
        word_embed_proj_dim=hidden_size,
        num_hidden_layers=32,
        num_attention_heads=32,
        ffn_dim=4 * hidden_size,
        max_position_embeddings=2048,
        dropout=0.1,
        init_std=INITIALIZER_RANGE,
        bos_token_id=2,
        eos_token_id=50_118,
        pad_token_id=1,
    )


def _flan_t5_xl() -> T5Config:
    """Flan-T5-XL; transformers counts its output head with the embedding, as tied."""
    return T5Config(
        vocab_size=32_128,
        d_model=2048,
        d_kv=64,
        d_ff=5120,
        num_layers=24,
        num_decoder_layers=24,
        num_heads=32,
        feed_forward_proj="gated-gelu",
        eos_token_id=1,
        pad_token_id=0,
    )
