"""The feature cache at work: what a frozen ViT gives of a recipe's images, computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import PIL.Image
import torch
from accelerate import PartialState
from PIL.Image import Image
from torch import Tensor

from qvft.assembly.model import Loaded
from qvft.data.collate import Collator
from qvft.data.features.content import Contents, contents_of
from qvft.data.features.fill import Encode, fill
from qvft.data.features.folders import default_cache
from qvft.data.features.size import require_room
from qvft.data.features.space import Space, StoredDtype, preprocessing_of, weights_sha256
from qvft.data.features.store import Cached, open_store
from qvft.data.sample import ImageSource, Sample
from qvft.errors import DataError, ImageError, RecipeError, SpaceError, UserError
from qvft.log import get_logger
from qvft.models.stages import encode_vision
from qvft.recipe.schema import Recipe

logger = get_logger("qvft.features")

EXACT: dict[torch.dtype, StoredDtype] = {torch.bfloat16: "bfloat16"}
"""What keeps features of a type as they are; float32 everything else."""
CHUNK = 16


def with_features(
    loaded: Loaded,
    recipe: Recipe,
    samples: Sequence[Sample],
    *,
    augmented: Sequence[Sample] = (),
) -> Loaded:
    """The model whose collator takes features from the cache, after what was missing is computed.

    Every process computes its share. Nothing changes where `data.features` is off, and, with a
    warning, where features would take more than `data.features_limit_gb` or the disk has, or
    where the cache cannot be written to.

    Args:
        samples: whose images are seen as they are.
        augmented: whose images are seen in `data.views` augmented views too.
    """
    if recipe.data.features == "off":
        return loaded
    views, augmentation = recipe.data.views + 1, loaded.collator.augmentation
    identity = augmentation.identity if augmentation is not None else None
    in_views = {s.image.name: s.image for s in augmented} if identity is not None else {}
    named = {s.image.name: s.image for s in (*augmented, *samples)}
    encode = partial(_encode, loaded.model)
    try:
        store = open_store(default_cache(), _space(loaded, recipe, encode))
    except DataError as error:
        return _without(loaded, error)
    workers = recipe.data.workers
    contents = contents_of(
        list(named.values()), max_pixels=recipe.data.max_image_pixels, threads=max(1, workers)
    )
    seen = _contents(contents, in_views)
    plain = _contents(contents, named) - seen
    as_they_are = [source for name, source in named.items() if contents[name] not in seen]
    keys = [store.key(content) for content in plain | seen]
    keys += [store.key(c, view=v, augmentation=identity) for c in seen for v in range(1, views)]
    present = sum(key in store for key in keys)
    state = PartialState()
    if present < len(keys):
        try:
            missing_bytes = require_room(
                default_cache(),
                store.space,
                len(seen),
                views=views if seen else 1,
                plain=len(plain),
                present=present,
                limit_bytes=round(recipe.data.features_limit_gb * 1e9),
            )
        except (RecipeError, SpaceError) as error:
            return _without(loaded, error)
        logger.info(
            "features of %d of %d images%s are not cached yet: %.3g GB to %s",
            len(keys) - present,
            len(keys),
            " and views" if seen else "",
            missing_bytes / 1e9,
            store.folder,
        )
    state.wait_for_everyone()  # all have looked before any fills the disk, and decided alike
    for sources, count in ((as_they_are, 1), (list(in_views.values()), views)):
        fill(
            store,
            sources,
            encode,
            read=partial(_read, loaded.collator),
            contents=contents,
            views=count,
            augmentation=identity,
            rank=state.process_index,
            world=state.num_processes,
            batch_size=CHUNK,
            workers=workers,
        )
    state.wait_for_everyone()
    store.refresh()
    cached = Cached(store, contents, augmentation=identity)
    return replace(loaded, collator=replace(loaded.collator, features=cached))


def _contents(contents: Contents, names: Iterable[str]) -> set[str]:
    """The contents of the images of these names that can be read."""
    return {c for name in names if not isinstance(c := contents[name], ImageError)}


def _without(loaded: Loaded, error: UserError) -> Loaded:
    """The model as it was: nothing is lost without the cache but time."""
    logger.warning("features are not cached, the ViT runs in every step: %s", error)
    return loaded


def _space(loaded: Loaded, recipe: Recipe, encode: Encode) -> Space:
    vision = loaded.model.vision_model
    features = encode(loaded.collator.normalise([_blank()]))
    stored = recipe.data.features_dtype
    return Space(
        vit=recipe.model.id,
        vit_sha256=weights_sha256(vision.state_dict().items()),
        preprocessing=preprocessing_of(loaded.collator.image_processor),
        compute_dtype=str(features.dtype).removeprefix("torch."),
        stored_dtype=EXACT.get(features.dtype, "float32") if stored == "auto" else stored,
        patches=features.shape[1],
        width=features.shape[2],
        vit_settings={
            "config": vision.config.to_dict() if hasattr(vision, "config") else {},
            "attention": recipe.model.attention,
            "device": loaded.model.device.type,
        },
    )


def _blank() -> Image:
    """An image to learn the shape of features from."""
    return PIL.Image.new("RGB", (16, 16))


def _encode(model: Any, pixels: Tensor) -> Tensor:
    """Features (I, P, W) in the ViT's own type, without autocast, so that whoever asks for them
    gets the same.
    """
    with torch.no_grad():
        return encode_vision(model, pixels.to(model.device))


def _read(collator: Collator, source: ImageSource, view: int) -> Tensor:
    """Normalised pixels (3, height, width) of a view."""
    return collator.normalise([collator.decode(source, view)])[0]
