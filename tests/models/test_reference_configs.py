"""The published geometries, by their published sizes."""

from __future__ import annotations

from collections import Counter

import pytest

from qvft.models.families import family_of
from qvft.models.reference_configs import known_configs, meta_model, with_known_decoder

# Millions, rounded as published; the decoders' are those of OPT with a vocabulary of 50,304, of
# LLaMA (6,738.42 and 13,015.86) with 64 tokens more, and of Flan-T5 with a tied head.
VISION, QFORMER, READER = {224: 985.95, 364: 986.54}, 105.14, 185.66


@pytest.mark.parametrize(
    ("hub_id", "qformer", "projection", "decoder"),
    [
        ("blip2-opt-2.7b", QFORMER, 1.97, 2651.68),
        ("blip2-opt-2.7b-coco", QFORMER, 1.97, 2651.68),
        ("blip2-opt-6.7b", QFORMER, 3.15, 6658.61),
        ("blip2-opt-6.7b-coco", QFORMER, 3.15, 6658.61),
        ("blip2-flan-t5-xl", QFORMER, 1.57, 2783.96),
        ("blip2-flan-t5-xl-coco", QFORMER, 1.57, 2783.96),
        ("blip2-flan-t5-xxl", QFORMER, 3.15, 11003.74),
        ("instructblip-vicuna-7b", READER, 3.15, 6738.94),
        ("instructblip-vicuna-13b", READER, 3.94, 13016.52),
        ("instructblip-flan-t5-xl", READER, 1.57, 2783.96),
        ("instructblip-flan-t5-xxl", READER, 3.15, 11003.74),
    ],
)
def test_the_parts_have_their_published_sizes(hub_id, qformer, projection, decoder) -> None:
    config = known_configs()[f"Salesforce/{hub_id}"]
    model = meta_model(config)
    family, found = family_of(model.config.model_type), Counter()
    for name, parameter in model.named_parameters():
        found[family.component(name)] += parameter.numel()
    assert found.pop("query_tokens") == 32 * 768
    millions = {component: round(total / 1e6, 2) for component, total in found.items()}
    assert millions == {
        "vision": VISION[config.vision_config.image_size],
        "qformer": qformer,
        "language_projection": projection,
        "decoder": decoder,
    }


def test_another_published_decoder_is_counted_without_a_download() -> None:
    config = with_known_decoder("Salesforce/blip2-opt-2.7b", "Qwen/Qwen3-0.6B")
    assert config is not None
    decoder = meta_model(config).language_model
    weights = sum(parameter.numel() for parameter in decoder.parameters())
    embedding = decoder.get_input_embeddings().weight.numel()
    # As published: 0.6 B, 0.44 B without the embedding.
    assert (round(weights / 1e9, 1), round((weights - embedding) / 1e9, 2)) == (0.6, 0.44)
    assert with_known_decoder("Salesforce/blip2-opt-2.7b", "other") is None
    assert with_known_decoder("Salesforce/instructblip-vicuna-7b", "Qwen/Qwen3-0.6B") is None


def test_the_table_has_no_model_that_is_not_counted_here() -> None:
    assert len(known_configs()) == 11


def test_no_part_starts_at_zero_width() -> None:
    for config in known_configs().values():
        assert config.vision_config.initializer_range == 0.02
        assert config.qformer_config.initializer_range == 0.02
