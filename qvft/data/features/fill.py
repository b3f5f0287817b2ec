"""Fills the feature cache: computes missing features; can be interrupted and restarted.

Shape letters: I images, P patches, W ViT width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import remove_abandoned
from qvft.data.features.shards import stored
from qvft.data.features.store import Store
from qvft.data.images.content_hash import PixelIds
from qvft.data.pixels import read_chunks
from qvft.data.sample import ImageSource
from qvft.errors import FailedError, ImageError, RecipeError
from qvft.files import require_space
from qvft.locks import in_turn
from qvft.log import get_logger
from qvft.progress import counted

logger = get_logger(__name__)

Read = Callable[[ImageSource, int], Tensor]
"""Normalised pixels (3, height, width) of an image's view, the same in every call. Raises
`ImageError`. Runs in workers."""
Encode = Callable[[Tensor], Tensor]
"""ViT features (I, P, W) of pixels (I, 3, height, width), in a new tensor for each call."""

SHARD_IMAGES, SHARD_SECONDS = 256, 300.0
"""A shard is closed after this many images or seconds, the most that an interruption can lose. 256
images of BLIP-2 in bfloat16 are 185 MB; while a shard is written, it is in memory twice."""

_HEADER_BYTES = 128
"""Bytes of an image's key and its part of a shard's header, rounded up."""


@dataclass(frozen=True)
class CacheEntry:
    """A required cache entry: an image, a view, and its key."""

    key: bytes
    source: ImageSource
    view: int


def cache_entries(
    spec: FeatureSpec,
    sources: Sequence[ImageSource],
    ids: PixelIds,
    *,
    views: int = 1,
    augmentation: Mapping[str, Any] | None = None,
) -> list[CacheEntry]:
    """Required cache entries of images, deduplicated; none for unreadable images.

    Args:
        ids: content hashes of the images, from `content_hash.pixel_ids`.
        views: views per image; 0 is unaugmented.
        augmentation: settings of the views above 0, with seed.
    """
    found: dict[bytes, CacheEntry] = {}
    for source in sources:
        content = ids[source.name]
        if not isinstance(content, ImageError):
            for view in range(views):
                key = spec.key(content, view=view, augmentation=augmentation if view else None)
                found.setdefault(key, CacheEntry(key, source, view))
    return list(found.values())


def features_bytes(spec: FeatureSpec, images: int) -> int:
    """Bytes on disk of the features of `images`; a view counts as an image."""
    return images * (spec.image_bytes + _HEADER_BYTES)


def require_room(store: Store, keys: Collection[bytes], *, limit_bytes: int | None = None) -> int:
    """Bytes still to be written, after a check against the limit and the free disk space.

    Args:
        keys: all required keys; existing ones count only for the limit.
        limit_bytes: maximum total size; None: no limit.

    Raises:
        RecipeError: they would exceed the limit.
        SpaceError: not enough disk space.
    """
    spec, total = store.spec, features_bytes(store.spec, len(keys))
    if limit_bytes is not None and total > limit_bytes:
        raise RecipeError(
            f"the features of {len(keys)} images take {total / 1e9:.3g} GB "
            f"({spec.image_bytes} bytes each, {spec.stored_dtype}; a view counts as an image)",
            where="data.features",
            expected=f"at most {limit_bytes / 1e9:.3g} GB",
            do="raise the limit, keep them in fewer bytes, have fewer views, or turn the cache off",
        )
    missing = features_bytes(spec, sum(key not in store for key in keys))
    require_space(store.folder, missing)
    return missing


def fill(
    store: Store,
    items: Sequence[CacheEntry],
    encode: Encode,
    *,
    read: Read,
    rank: int = 0,
    world: int = 1,
    batch_size: int = 16,
    workers: int = 0,
    shard_images: int = SHARD_IMAGES,
    shard_seconds: float = SHARD_SECONDS,
) -> dict[str, ImageError]:
    """Computes and stores the entries that `store` lacks, this process's share of `items`.

    Images are encoded in chunks that depend only on their order and on `batch_size`, and a chunk is
    never split: features are bit-identical after an interruption and for any number of processes.
    `store.refresh()` finds what other processes have written.

    Args:
        items: from `cache_entries`.
        encode: the ViT, called without gradients.
        read: decodes, augments and normalises one image.
        rank, world: rank and number of processes, which share the chunks.
        batch_size: images encoded together.
        workers: decoding processes; 0 decodes in this one.
        shard_images, shard_seconds: limits at which a shard is closed.

    Returns:
        Errors by image name, for images without features.

    Raises:
        SpaceError: the disk is full; what was written stays.
        FailedError: a feature is not finite.
        DataError: the cache is not writable.
    """
    starts = range(rank * batch_size, len(items), world * batch_size)
    chunks = [items[start : start + batch_size] for start in starts]
    if not _missing(store, chunks):
        return {}
    with in_turn(
        store.folder,
        f"fill-{rank}",  # the processes of one program fill concurrently
        waiting=lambda busy: logger.info("the feature cache is filled in turn: %s", busy.given),
    ):
        for path in store.damaged:
            path.unlink(missing_ok=True)
        remove_abandoned(store.folder)
        store.refresh()
        todo, share = _missing(store, chunks), sum(map(len, chunks))
        unusable: dict[str, ImageError] = {}
        keys: list[bytes] = []
        parts: list[dict[str, Tensor]] = []
        begun = time.monotonic()

        def close_shard() -> None:
            nonlocal keys, parts, begun
            complete = keys, parts
            keys, parts, begun = [], [], time.monotonic()
            store.add(*complete)

        with counted(
            "caching features of images", share, done=share - sum(map(len, todo))
        ) as count:
            read_in_workers = read_chunks(todo, partial(_read, read), torch.stack, workers=workers)
            try:
                for chunk, (pixels, problems) in zip(todo, read_in_workers, strict=True):
                    count.advance(len(chunk))
                    pairs = list(zip(chunk, problems, strict=True))
                    unusable |= {item.source.name: error for item, error in pairs if error}
                    if pixels is not None:
                        good = [item for item, error in pairs if error is None]
                        parts.append(stored(store.spec, _encoded(encode, pixels, good)))
                        keys += [item.key for item in good]
                    if len(keys) >= shard_images or time.monotonic() - begun >= shard_seconds:
                        close_shard()
            finally:  # computed features are kept on Ctrl-C and errors
                close_shard()
    return unusable


def _missing(store: Store, chunks: Sequence[Sequence[CacheEntry]]) -> list[list[CacheEntry]]:
    found = [[item for item in chunk if item.key not in store] for chunk in chunks]
    return [chunk for chunk in found if chunk]


def _read(read: Read, item: CacheEntry) -> Tensor:
    return read(item.source, item.view)


def _encoded(encode: Encode, pixels: Tensor, items: Sequence[CacheEntry]) -> Tensor:
    """Features (I, P, W), checked to be finite."""
    with torch.no_grad():
        features = encode(pixels)
    finite = torch.isfinite(features).flatten(1)
    for item, one in zip(items, finite, strict=True):
        if not bool(one.all()):
            raise FailedError(
                f"{item.source.name}: {int((~one).sum())} of {one.numel()} ViT features are not "
                "finite, expected numbers; nothing of its batch was stored; compute the ViT in "
                "bfloat16 or float32, and check its weights."
            )
    return features
