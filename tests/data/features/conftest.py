"""A space of small features and stores that hold some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.shards import write_shards
from qvft.data.features.store import Store, open_store


@pytest.fixture
def space() -> FeatureSpec:
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
def filled(space: FeatureSpec) -> Callable[..., tuple[Store, dict[bytes, torch.Tensor]]]:
    """A function that stores random features and gives the store and what went in."""

    def make(
        cache: Path, *, count: int = 6, shard: int = 2, seed: int = 0, **changes: Any
    ) -> tuple[Store, dict[bytes, torch.Tensor]]:
        store = open_store(cache, replace(space, **changes))
        generator = torch.Generator().manual_seed(seed)
        shape = (count, store.space.patches, store.space.width)
        features = torch.randn(shape, generator=generator)
        if store.space.stored_dtype == "bfloat16":
            features = features.bfloat16()
        given = {store.key(f"{seed}-{n}"): one for n, one in enumerate(features)}
        chunks = ([pair] for pair in given.items())
        for index in write_shards(store.folder, store.space, chunks, records=shard, seconds=60):
            store.include(index)
        return store, given

    return make
