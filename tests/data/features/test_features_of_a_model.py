"""The cache around a real ViT, and what storing features in fewer bits does to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qvft.data.features.cache_spec import FeatureSpec, preprocessing_of, weights_sha256
from qvft.data.features.fill import cache_entries, fill
from qvft.data.features.store import Cached, open_store
from qvft.data.images.content_hash import pixel_ids
from qvft.data.sample import ImageSource
from qvft.models.forward_stages import encode_vision
from qvft.recipe.load import load_recipe
from qvft.setup.model import base_model, base_of
from tools.tiny_blip2.scene_format import DrawnImage

SOURCES = [DrawnImage(seed=5, index=index, size_px=48) for index in range(6)]


@pytest.fixture(scope="module")
def loaded(recipe_file: Path) -> tuple:
    """A model, its collator and the spec of its features."""
    recipe = load_recipe(recipe_file)
    both = base_model(recipe, base_of(recipe))
    model = both.model.eval()
    with torch.no_grad():
        shape = encode_vision(model, both.collator.pixels(SOURCES[:1])).shape
    spec = FeatureSpec(
        vit=recipe.model.id,
        vit_sha256=weights_sha256(model.vision_model.named_parameters()),
        vit_settings=model.config.vision_config.to_dict(),
        preprocessing=preprocessing_of(both.collator.image_processor),
        compute_dtype="float32",
        stored_dtype="float32",
        patches=shape[1],
        width=shape[2],
    )
    return model, both.collator, spec


def cached(loaded: tuple, folder: Path, **changes: str) -> torch.Tensor:
    model, collator, spec = loaded

    def read(source: ImageSource, view: int) -> torch.Tensor:
        return collator.pixels([source])[0]

    store = open_store(folder, replace(spec, **changes))
    ids = pixel_ids(SOURCES)
    items = cache_entries(store.spec, SOURCES, ids)
    fill(store, items, lambda pixels: encode_vision(model, pixels), read=read)
    return Cached(store, ids)(SOURCES)


@pytest.fixture(scope="module")
def live(loaded: tuple) -> torch.Tensor:
    model, collator, _ = loaded
    with torch.no_grad():
        return encode_vision(model, collator.pixels(SOURCES))


def test_cached_features_are_those_of_the_vit(
    loaded: tuple, live: torch.Tensor, tmp_path: Path
) -> None:
    assert torch.equal(cached(loaded, tmp_path), live)


def test_bfloat16_features_are_rounded_once(
    loaded: tuple, live: torch.Tensor, tmp_path: Path
) -> None:
    assert torch.equal(cached(loaded, tmp_path, stored_dtype="bfloat16"), live.bfloat16())


def test_int8_features_are_off_by_half_a_step_of_their_token(
    loaded: tuple, live: torch.Tensor, tmp_path: Path
) -> None:
    error = (cached(loaded, tmp_path, stored_dtype="int8") - live).abs()
    # Half a step of 1/127 of the token's largest value; float32 adds at most 2^-15 steps.
    bound = live.abs().amax(-1, keepdim=True) / 127 * (0.5 + 2**-15)
    assert bool((error <= bound).all()) and bool(error.any())
