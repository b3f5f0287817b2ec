"""Configurations of the published BLIP-2 and InstructBLIP models, to count parameters without a
download.

Sources: config.json of each hub repository; BLIP-2, arXiv 2301.12597, section 4; InstructBLIP,
arXiv 2305.06500, section 2.6; OPT, arXiv 2205.01068, table 1; LLaMA, arXiv 2302.13971, table 2; the
sizes of google/flan-t5-xl and -xxl; config.json of Qwen/Qwen3-0.6B.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import (
    Blip2Config,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    InstructBlipConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)

from qvft.models.families import family_of
from qvft.models.load import model_class
from qvft.models.question_aware.configuration import question_aware_config
from qvft.models.qvision.reference_parts import qwen3_0_6b

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
    opt_2_7b, opt_6_7b = _opt(hidden_size=2560), _opt(hidden_size=4096)
    t5_xl = _flan_t5(d_model=2048, d_ff=5120, heads=32)
    t5_xxl = _flan_t5(d_model=4096, d_ff=10_240, heads=64)
    vicuna_7b = _vicuna(hidden_size=4096, intermediate_size=11_008, layers=32)
    vicuna_13b = _vicuna(hidden_size=5120, intermediate_size=13_824, layers=40)
    coco = COCO_IMAGE_SIZE_PX
    return {
        "Salesforce/blip2-opt-2.7b": _blip2(opt_2_7b),
        "Salesforce/blip2-opt-2.7b-coco": _blip2(opt_2_7b, image_size=coco),
        "Salesforce/blip2-opt-6.7b": _blip2(opt_6_7b),
        "Salesforce/blip2-opt-6.7b-coco": _blip2(opt_6_7b, image_size=coco),
        "Salesforce/blip2-flan-t5-xl": _blip2(t5_xl),
        "Salesforce/blip2-flan-t5-xl-coco": _blip2(t5_xl, image_size=coco),
        "Salesforce/blip2-flan-t5-xxl": _blip2(t5_xxl),
        "Salesforce/instructblip-vicuna-7b": _instructblip(vicuna_7b),
        "Salesforce/instructblip-vicuna-13b": _instructblip(vicuna_13b),
        "Salesforce/instructblip-flan-t5-xl": _instructblip(t5_xl),
        "Salesforce/instructblip-flan-t5-xxl": _instructblip(t5_xxl),
    }


def with_known_decoder(base: str, decoder: str) -> Blip2Config | None:
    """The geometry of a published BLIP-2 with another published decoder; None for others."""
    known = known_configs().get(base)
    if not isinstance(known, Blip2Config) or decoder != "Qwen/Qwen3-0.6B":
        return None
    return _blip2(qwen3_0_6b(), image_size=cast(Any, known.vision_config).image_size)


def question_config(base: Blip2Config, text_branch: str) -> InstructBlipConfig | None:
    """The question-aware geometry of a published base and text branch; None for other branches.

    The vocabulary is the branch's words, `[DEC]` and `<image>`.
    """
    rows = {"Salesforce/blip2-itm-vit-g": 30_524, "bert-base-uncased": BERT_AND_DEC}
    if text_branch not in rows:
        return None
    return question_aware_config(base, word_rows=rows[text_branch], positions=512, pad_id=0)


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a configuration on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        return model_class(family_of(config.model_type))(config)


def _instructblip(text: LlamaConfig | T5Config) -> InstructBlipConfig:
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
