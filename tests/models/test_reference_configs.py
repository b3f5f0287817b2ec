"""The published geometries, by their published sizes."""

from __future__ import annotations

from collections import Counter

import pytest

from qvft.models.families import family_of
from qvft.models.reference_configs import known_configs, meta_model

# Millions, rounded as published; the decoders' are those of OPT with a vocabulary of 50,304.
BRIDGE = {"vision": 985.95, "qformer": 105.14}


@pytest.mark.parametrize(
    ("hub_id", "projection", "decoder"),
    [
        ("Salesforce/blip2-opt-2.7b", 1.97, 2651.68),
        ("Salesforce/blip2-opt-6.7b", 3.15, 6658.61),
        ("Salesforce/blip2-flan-t5-xl", 1.57, 2783.96),
    ],
)
def test_the_parts_have_their_published_sizes(hub_id, projection, decoder) -> None:
    model = meta_model(known_configs()[hub_id])
    family, found = family_of(model.config.model_type), Counter()
    for name, parameter in model.named_parameters():
        found[family.component(name)] += parameter.numel()
    assert found.pop("query_tokens") == 32 * 768
    millions = {component: round(total / 1e6, 2) for component, total in found.items()}
    assert millions == {**BRIDGE, "language_projection": projection, "decoder": decoder}


def test_no_part_starts_at_zero_width() -> None:
    for config in known_configs().values():
        assert config.vision_config.initializer_range == 0.02
        assert config.qformer_config.initializer_range == 0.02
