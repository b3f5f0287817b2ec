"""Configurations of published BLIP-2 and InstructBLIP models, and of vision towers and decoders of
a QVision, to count parameters without a download.

Sources: config.json and preprocessor_config.json of each hub repository; BLIP-2, arXiv 2301.12597,
section 4; InstructBLIP, arXiv 2305.06500, section 2.6; OPT, arXiv 2205.01068, table 1; LLaMA, arXiv
2302.13971, table 2; the sizes of google/flan-t5-xl and -xxl; CLIP, arXiv 2103.00020; SigLIP, arXiv
2303.15343; SigLIP 2, arXiv 2502.14786; DINOv2, arXiv 2304.07193; SmolLM2, arXiv 2502.02737.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from transformers import (
    Blip2Config,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPConfig,
    Dinov2Config,
    GPT2Config,
    InstructBlipConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    SiglipConfig,
    T5Config,
)

from qvft.models.families import family_of
from qvft.models.load import model_class
from qvft.models.question_aware.graft import question_aware_config
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.published import CLIP, GPT_NEO

INITIALIZER_RANGE = 0.02
OPT_VOCABULARY = 50_304
"""OPT's 50,265 tokens and `<image>`, padded to a multiple of 64."""
VICUNA_VOCABULARY = 32_064
"""LLaMA's 32,000 tokens, `[PAD]` and `<image>`, padded to a multiple of 64 as OPT's."""
IMAGE_TOKENS = {"opt": 50_265, "t5": 32_100, "llama": 32_001, "qwen3": 151_669}
"""Id of `<image>` by the decoder's type; Qwen3's is the first that its tokenizer leaves free."""
BERT_AND_DEC = 30_523
"""Words of InstructBLIP's Q-Former: BERT's and `[DEC]`."""
COCO_IMAGE_SIZE_PX = 364


def known_configs() -> dict[str, Blip2Config | InstructBlipConfig]:
    """Configurations by hub id."""
    t5 = {
        "flan-t5-xl": _flan_t5(d_model=2048, d_ff=5120, heads=32),
        "flan-t5-xxl": _flan_t5(d_model=4096, d_ff=10_240, heads=64),
    }
    plain = {"opt-2.7b": _opt(2560), "opt-6.7b": _opt(4096), **t5}
    question_aware = {
        "vicuna-7b": _vicuna(hidden_size=4096, intermediate_size=11_008, layers=32),
        "vicuna-13b": _vicuna(hidden_size=5120, intermediate_size=13_824, layers=40),
        **t5,
    }
    return {
        **{f"Salesforce/blip2-{name}": _blip2(text) for name, text in plain.items()},
        **{
            f"Salesforce/blip2-{name}-coco": _blip2(plain[name], image_size=COCO_IMAGE_SIZE_PX)
            for name in ("opt-2.7b", "opt-6.7b", "flan-t5-xl")
        },
        **{f"Salesforce/instructblip-{n}": _instructblip(t) for n, t in question_aware.items()},
    }


def with_known_decoder(base: str, decoder: str) -> Blip2Config | None:
    """The geometry of a published BLIP-2 with another published decoder; None for others."""
    known = known_configs().get(base)
    if not isinstance(known, Blip2Config) or decoder != "Qwen/Qwen3-0.6B":
        return None
    return _blip2(_qwen3_0_6b(), image_size=cast(Any, known.vision_config).image_size)


def question_config(base: Blip2Config, text_branch: str) -> InstructBlipConfig | None:
    """The question-aware geometry of a published base and text branch; None for other branches.

    The vocabulary is the branch's words, `[DEC]` and `<image>`.
    """
    rows = {"Salesforce/blip2-itm-vit-g": 30_524, "bert-base-uncased": BERT_AND_DEC}
    if text_branch not in rows:
        return None
    return question_aware_config(base, word_rows=rows[text_branch], positions=512, pad_id=0)


def reference_qvision(vision: str, decoder: str) -> QVisionConfig | None:
    """The geometry of a QVision of two published checkpoints; None if either is not listed."""
    if vision not in _TOWERS or decoder not in _DECODERS:
        return None
    text = _DECODERS[decoder]()
    return QVisionConfig(_TOWERS[vision](), text, qformer_hidden_size=text.hidden_size)


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a configuration on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        return model_class(family_of(config.model_type))(config)


def _instructblip(text: PretrainedConfig) -> InstructBlipConfig:
    return question_aware_config(_blip2(text), word_rows=BERT_AND_DEC, positions=512, pad_id=0)


def _blip2(text: PretrainedConfig, *, image_size: int = 224) -> Blip2Config:
    # `Blip2VisionConfig` defaults to 1e-10, which makes a random model ignore the image.
    vision = Blip2VisionConfig(
        hidden_size=1408,
        intermediate_size=6144,
        num_hidden_layers=39,
        num_attention_heads=16,
        image_size=image_size,
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
        image_token_index=IMAGE_TOKENS[text.model_type],
        initializer_range=INITIALIZER_RANGE,
    )


def _opt(hidden_size: int) -> OPTConfig:
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


def _vicuna(*, hidden_size: int, intermediate_size: int, layers: int) -> LlamaConfig:
    """Vicuna-7B (4096) and Vicuna-13B (5120), whose heads are 128 wide."""
    return LlamaConfig(
        vocab_size=VICUNA_VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 128,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )


def _flan_t5(*, d_model: int, d_ff: int, heads: int) -> T5Config:
    """Flan-T5-XL (2048) and -XXL (4096); transformers counts their output head with the embedding,
    as tied.
    """
    # Its own fields are typed; those of every configuration are not.
    general: dict[str, Any] = {"tie_word_embeddings": False, "decoder_start_token_id": 0}
    return T5Config(
        vocab_size=32_128,
        d_model=d_model,
        d_kv=64,
        d_ff=d_ff,
        num_layers=24,
        num_decoder_layers=24,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        eos_token_id=1,
        pad_token_id=0,
        **general,
    )


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


def _qwen3_0_6b() -> Qwen3Config:
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
    "Qwen/Qwen3-0.6B": _qwen3_0_6b,
}
"""With rows for `<START>` and `<END>`."""
