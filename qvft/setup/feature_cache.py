"""Sets up the feature cache of a recipe: frozen ViT outputs, computed once per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import PIL.Image
import torch
from torch import Tensor, nn

from qvft.data.collate import Collator
from qvft.data.features.cache_spec import FeatureSpec, StoredDtype, preprocessing_of, weights_sha256
from qvft.data.features.fill import CacheEntry, cache_entries, fill, require_room
from qvft.data.features.folders import default_cache
from qvft.data.features.store import Cached, Store, open_store
from qvft.data.images.content_hash import PixelIds, pixel_ids
from qvft.data.sample import ImageSource, Sample
from qvft.errors import DataError, ModelError, RecipeError, SpaceError, UserError
from qvft.log import get_logger
from qvft.models.distributed import all_gather_object, processes
from qvft.models.forward_stages import encode_vision
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded

logger = get_logger("qvft.features")

CHUNK = 16
"""Images per pass of the ViT."""


def with_features(
    loaded: Loaded,
    recipe: Recipe,
    samples: Sequence[Sample],
    *,
    augmented: Sequence[Sample] = (),
) -> Loaded:
    """The model with a collator that uses cached features; computes missing ones first.

    Every process computes its share. Without cache if `data.features` is off, or, with a warning,
    if features would exceed `data.features_limit_gb` or the disk, or if the cache is not writable.

    Args:
        samples: samples with unaugmented images.
        augmented: samples that also use `data.augmentations_per_image` augmented views.
    """
    if recipe.data.features == "off":
        return loaded
    problem: UserError | None = None
    try:
        spec = _features_of(
            loaded.model,
            loaded.collator,
            vit=recipe.model.id,
            stored=recipe.data.features_dtype,
            attention=recipe.model.kernel,
        )
        store = open_store(default_cache(), spec)
        ids = pixel_ids(
            [sample.image for sample in (*augmented, *samples)],
            max_pixels=recipe.data.max_image_pixels,
        )
        groups = _entries(store, loaded, recipe, ids, samples, augmented)
        keys = [item.key for group in groups for item in group]
        if missing := sum(key not in store for key in keys):
            limit = round(recipe.data.features_limit_gb * 1e9)
            logger.info(
                "features of %d of %d images (each view counts) are not cached yet: %.3g GB to %s",
                missing,
                len(keys),
                require_room(store, keys, limit_bytes=limit) / 1e9,
                store.folder,
            )
    except (DataError, RecipeError, SpaceError) as error:
        problem = error
    # All processes check before any fills the disk; if one host lacks space, none caches.
    refused = next((error for error in all_gather_object(problem) if error is not None), None)
    if refused is not None:
        logger.warning("features are not cached, the ViT runs in every step: %s", refused)
        return loaded
    _fill(store, groups, loaded, workers=recipe.data.num_workers)
    augmentation = loaded.collator.augmentation
    cached = Cached(store, ids, augmentation=augmentation.identity if augmentation else None)
    return replace(loaded, collator=replace(loaded.collator, features=cached))


def _entries(
    store: Store,
    loaded: Loaded,
    recipe: Recipe,
    ids: PixelIds,
    samples: Sequence[Sample],
    augmented: Sequence[Sample],
) -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Required entries of images with one view and of images with several."""
    images = list({s.image.name: s.image for s in (*augmented, *samples)}.values())
    augmentation = loaded.collator.augmentation
    if augmentation is None:
        return cache_entries(store.spec, images, ids), []
    in_views = cache_entries(
        store.spec,
        list({s.image.name: s.image for s in augmented}.values()),
        ids,
        views=recipe.data.augmentations_per_image + 1,
        augmentation=augmentation.identity,
    )
    seen = {item.key for item in in_views}
    return [
        item for item in cache_entries(store.spec, images, ids) if item.key not in seen
    ], in_views


def _fill(
    store: Store, groups: Sequence[list[CacheEntry]], loaded: Loaded, *, workers: int
) -> None:
    """Computes missing features on all processes; if hosts do not share a file system, the rest is
    computed per host.
    """
    state = processes()
    for rank, world in (
        (state.process_index, state.num_processes),
        (state.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
    ):
        for group in groups:
            fill(
                store,
                group,
                partial(_encode, loaded.model),
                read=partial(_read, loaded.collator),
                rank=rank,
                world=world,
                batch_size=CHUNK,
                workers=workers,
            )
        state.wait_for_everyone()
        store.refresh()
        done = all(item.key in store for group in groups for item in group)
        if all(all_gather_object(done)):
            break


def cache_features(
    model: Any,
    collator: Collator,
    images: Sequence[ImageSource],
    *,
    vit: str,
    attention: str = "sdpa",
    cache: Path | None = None,
    workers: int = 0,
) -> Cached:
    """Cached features of images, computed if missing, for your own training loop.

    With `replace(collator, features=cache_features(...))` batches have `features` instead of
    `pixel_values`, and no step runs the ViT.

    Args:
        model: model of any family, with its ViT.
        collator: decodes and preprocesses images.
        vit: name of the ViT in listings of the cache.
        attention: attention kernel of the loaded model.
        cache: folder; None: $QVFT_CACHE, or ~/.cache/qvft/features.
        workers: image decoding processes.

    Raises:
        SpaceError, DataError: the cache is not writable.
    """
    spec = _features_of(model, collator, vit=vit, stored="auto", attention=attention)
    store = open_store(cache or default_cache(), spec)
    ids = pixel_ids(images, max_pixels=collator.max_image_pixels)
    entries, read = cache_entries(store.spec, images, ids), partial(_read, collator)
    fill(store, entries, partial(_encode, model), read=read, workers=workers)
    return Cached(store, ids)


def _features_of(
    model: Any,
    collator: Collator,
    *,
    vit: str,
    stored: Literal["auto"] | StoredDtype,
    attention: str,
) -> FeatureSpec:
    """What features depend on; their shape is that of a blank image's."""
    vision = model.vision_model
    features = _encode(model, collator.normalise([PIL.Image.new("RGB", (16, 16))]))
    lossless: StoredDtype = "bfloat16" if features.dtype == torch.bfloat16 else "float32"
    return FeatureSpec(
        vit=vit,
        vit_sha256=weights_sha256(vision.state_dict().items()),
        preprocessing=preprocessing_of(collator.image_processor),
        compute_dtype=str(features.dtype).removeprefix("torch."),
        stored_dtype=lossless if stored == "auto" else stored,
        patches=features.shape[1],
        width=features.shape[2],
        vit_settings={
            "config": vision.config.to_dict() if hasattr(vision, "config") else {},
            "attention": attention,
            "device": _vit_device(model).type,
        },
    )


def _encode(model: Any, pixels: Tensor) -> Tensor:
    """Features (I, P, W) in the ViT's dtype, without autocast."""
    with torch.no_grad():
        return encode_vision(model, pixels.to(_vit_device(model)))


def _vit_device(model: Any) -> torch.device:
    """Device of the ViT; the rest of the model may be elsewhere."""
    return next(model.vision_model.parameters()).device


def _read(collator: Collator, source: ImageSource, view: int) -> Tensor:
    """Normalised pixels (3, height, width) of a view."""
    return collator.normalise([collator.resized(source, view)])[0]


def unload_vision(model: nn.Module) -> int:
    """Unloads the weights of a model's ViT, in place; returns the freed bytes.

    Each parameter keeps its name, shape, dtype and device, but all its values share one zero in
    memory, so that counting, freezing and saving still work. The ViT cannot run any more.
    """
    vision = model.get_submodule("vision_model")
    freed = 0
    for parameter in vision.parameters():
        assert not parameter.requires_grad, "a trained ViT is needed"
        freed += parameter.numel() * parameter.itemsize
        zero = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
        parameter.data = zero.expand(parameter.shape)
    vision.forward = _refuse
    return freed


def _refuse(*_: Any, **__: Any) -> Any:
    raise ModelError(
        "the ViT has been unloaded, since the features of all images are cached",
        do="set data.features=off",
    )
