"""The published counts, to the last printed digit and by arithmetic; no weights are made."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.reference_configs import reference_qvision

D = 1024
NEO_BLOCK = 3 * D**2 + (D**2 + D) + (8 * D**2 + 5 * D) + 2 * 2 * D
EMBEDDINGS, POSITIONS, FINAL_NORM = 50_259 * D, 2_048 * D, 2 * D


def meta_model(config: QVisionConfig) -> QVisionForConditionalGeneration:
    with torch.device("meta"):
        return QVisionForConditionalGeneration(config)


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def printed(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def qformer_formula(width: int, blocks: int, factor: int, tokens: int) -> int:
    attention = 4 * (width**2 + width)
    feed_forward = 2 * factor * width**2 + factor * width + width
    norm = 2 * width
    return (
        tokens * width
        + 3 * (width**2 + width)
        + blocks * (2 * attention + 2 * feed_forward + 4 * norm)
        + (attention + feed_forward + 2 * norm)
        + 1
    )


@pytest.fixture(scope="module")
def published() -> QVisionForConditionalGeneration:
    return meta_model(QVisionConfig())


def test_the_parts_have_their_published_sizes(published) -> None:
    parts = published.vision_model, published.qformer, published.language_model, published
    assert [printed(weights(part)) for part in parts] == [
        "152.06 M",
        "66.20 M",
        "355.80 M",
        "574.06 M",
    ]


def test_the_parts_are_all_there_is(published) -> None:
    parts = published.vision_model, published.qformer, published.language_model
    assert sum(map(weights, parts)) == weights(published)


def test_the_sizes_follow_from_the_geometry(published) -> None:
    # CLIP ViT-B/32 as published by OpenAI has 151,277,313 weights, both towers and its scale.
    assert weights(published.vision_model) == 151_277_313 + 768 * D + D
    assert weights(published.qformer) == qformer_formula(D, 2, 4, 65) == 66_196_481
    assert weights(published.language_model) == (
        EMBEDDINGS + POSITIONS + 24 * NEO_BLOCK + FINAL_NORM
    )


def test_the_top_15_blocks_the_last_norm_and_the_tied_embeddings_are_trained() -> None:
    model = meta_model(QVisionConfig()).requires_grad_(False)
    decoder = model.language_model
    body = decoder.transformer
    for part in (model.qformer, body.h[9:], body.wte, body.ln_f):
        part.requires_grad_(True)
    assert decoder.lm_head.weight.requires_grad, "the head is the embeddings"
    assert trained(model.vision_model) == 0
    assert trained(decoder) == 15 * NEO_BLOCK + EMBEDDINGS + FINAL_NORM == 240_364_544
    assert printed(trained(decoder)) == "240.36 M"
    assert f"{100 * trained(decoder) / weights(decoder):.2f} %" == "67.56 %"
    assert printed(trained(model)) == "306.56 M"
    assert f"{100 * trained(model) / weights(model):.2f} %" == "53.40 %"


@pytest.mark.parametrize(("width", "blocks", "factor"), [(32, 1, 2), (16, 3, 4)])
def test_any_qformer_has_the_weights_of_the_formula(make_config, width, blocks, factor) -> None:
    config = make_config(
        text="opt" if width == 16 else "gpt_neo",
        qformer_num_blocks=blocks,
        qformer_ffn_factor=factor,
        num_query_tokens=5,
    )
    assert config.num_states == 6
    assert weights(meta_model(config).qformer) == qformer_formula(width, blocks, factor, 6)


@pytest.mark.parametrize(
    ("vision", "count"),
    [
        ("openai/clip-vit-base-patch32", 151_277_313),
        ("google/siglip-base-patch16-224", 203_155_970),
        ("google/siglip2-base-patch16-224", 375_187_970),
        # Published with positions for 518 pixels, 86,580,480; at 224 there are 1,113 fewer.
        ("facebook/dinov2-base", 86_580_480 - 1_113 * 768),
    ],
)
def test_a_tower_has_its_published_size(vision: str, count: int) -> None:
    config = reference_qvision(vision, "openai-community/gpt2")
    assert config is not None and config.tower_config.image_size == 224
    assert weights(meta_model(config).vision_model.tower) == count


@pytest.mark.parametrize(
    ("decoder", "count"),
    [
        ("openai-community/gpt2", 124_439_808 + 2 * 768),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008 + 2 * 576),
        ("Qwen/Qwen3-0.6B", 596_049_920),  # the marks take rows to spare
    ],
)
def test_a_decoder_has_its_published_size_and_the_marks(decoder: str, count: int) -> None:
    config = reference_qvision("facebook/dinov2-base", decoder)
    assert config is not None and weights(meta_model(config).language_model) == count


def test_the_published_pair_is_the_default_and_other_pairs_are_read() -> None:
    found = reference_qvision("openai/clip-vit-base-patch32", "xhyi/PT_GPTNEO350_ATG")
    assert found is not None and found.to_dict() == QVisionConfig().to_dict()
    assert reference_qvision("facebook/dinov2-base", "other") is None
    assert reference_qvision("other", "openai-community/gpt2") is None


def test_a_vision_model_alone_has_no_text_tower(published) -> None:
    alone = meta_model(QVisionConfig(vision_config=CLIPVisionConfig())).vision_model
    clip = published.vision_model.tower
    beside = clip.text_model, clip.text_projection, clip.visual_projection
    # One weight more: the logit scale.
    assert weights(published.vision_model) - weights(alone) == sum(map(weights, beside)) + 1
