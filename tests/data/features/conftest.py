"""A spec of small features and stores that hold some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.shards import stored
from qvft.data.features.store import Store, open_store


@pytest.fixture
def spec() -> FeatureSpec:
    return FeatureSpec(
        vit="a ViT",
        vit_sha256="ab" * 32,
        preprocessing={"settings": {"size": {"height": 8, "width": 8}}, "processor": "Small"},
        compute_dtype="float32",
        stored_dtype="float32",
        patches=3,
        width=5,
    )


@pytest.fixture
def filled(spec: FeatureSpec) -> Callable[..., tuple[Store, dict[bytes, torch.Tensor]]]:
    """A function that stores random features and gives the store and what went in."""

    def make(
        cache: Path, *, count: int = 6, shard: int = 2, seed: int = 0, **changes: Any
    ) -> tuple[Store, dict[bytes, torch.Tensor]]:
        store = open_store(cache, replace(spec, **changes))
        generator = torch.Generator().manual_seed(seed)
        shape = (count, store.spec.patches, store.spec.width)
        features = torch.randn(shape, generator=generator)
        if store.spec.stored_dtype == "bfloat16":
            features = features.bfloat16()
        given = {store.spec.key(f"{seed}-{n}"): one for n, one in enumerate(features)}
        keys = list(given)
        for start in range(0, count, shard):
            part = slice(start, start + shard)
            store.add(keys[part], [stored(store.spec, features[part])])
        return store, given

    return make
