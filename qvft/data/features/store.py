"""Looks up cached features by key or by image.

Shape letters: I images, P patches, W ViT width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import SPACE_FILE, description, shard_files
from qvft.data.features.shards import Shard, read_keys, write_shard
from qvft.data.images.content_hash import PixelIds
from qvft.data.sample import ImageSource
from qvft.disk import not_written
from qvft.errors import DataError, ImageError
from qvft.json_files import sha256_json, write_json
from qvft.log import get_logger

logger = get_logger(__name__)


def open_store(cache: Path, spec: FeatureSpec) -> Store:
    """The store of a spec; creates its folder. Raises DataError if it is not writable."""
    folder = cache / spec.id
    found = {name: value for name, value in description(folder).items() if name != "vit"}
    if sha256_json(found) != spec.id:  # none yet, or damaged
        try:
            write_json(folder / SPACE_FILE, {"vit": spec.vit, **spec.identity})
        except OSError as error:
            raise not_written(error, folder) from error
    return Store(folder, spec)


class Store:
    """Features of one cache folder, by key.

    Headers are read at construction and by `refresh`; a shard is mapped at its first read. It can
    be sent to DataLoader workers. `damaged` are unusable shards, which count as missing; `fill`
    removes them.
    """

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        self.folder, self.spec = folder, spec
        self.damaged: list[Path] = []
        self._places: dict[bytes, tuple[Shard, int]] = {}
        self._seen: set[Path] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def refresh(self) -> None:
        """Adds the shards that other processes have written."""
        for path in shard_files(self.folder):
            if path in self._seen:
                continue
            self._seen.add(path)
            try:
                self._include(path, read_keys(path))
            except FileNotFoundError:  # pruned meanwhile
                continue
            except DataError as error:
                self.damaged.append(path)
                logger.warning("a shard's features will be computed again: %s", error)
            except OSError as error:
                logger.warning("a shard's features are not used: %s: %s", path, error)

    def add(self, keys: Sequence[bytes], chunks: Sequence[dict[str, Tensor]]) -> None:
        """Writes a shard and adds it, unless it is empty; see `write_shard`."""
        if not keys:
            return
        path = write_shard(self.folder, keys, chunks)
        self._seen.add(path)
        self._include(path, keys)

    def _include(self, path: Path, keys: Sequence[bytes]) -> None:
        shard = Shard(path)
        for number, key in enumerate(keys):
            self._places.setdefault(key, (shard, number))

    def features(self, key: bytes) -> Tensor:
        """Features (P, W), see `Shard.features`; raises KeyError if they are not in the store."""
        shard, number = self._places[key]
        return shard.features(number)


class Cached:
    """Cached features by image, for the `features` argument of a `Collator`.

    Args:
        ids: content hashes of the images, from `content_hash.pixel_ids`.
        augmentation: augmentation of views above 0.
    """

    def __init__(
        self, store: Store, ids: PixelIds, *, augmentation: Mapping[str, Any] | None = None
    ) -> None:
        self.store, self.ids, self.augmentation = store, ids, augmentation

    def __call__(self, sources: Sequence[ImageSource], views: Sequence[int] = ()) -> Tensor:
        """Features (I, P, W) of images, or of one view of each.

        Raises:
            ImageError: an image cannot be read, or has no cached features.
            DataError: a shard is missing or truncated.
        """
        views = views or [0] * len(sources)
        return torch.stack([self._one(*pair) for pair in zip(sources, views, strict=True)])

    def _one(self, source: ImageSource, view: int) -> Tensor:
        content = self.ids.get(source.name)
        if isinstance(content, ImageError):
            raise content
        augmentation = self.augmentation if view else None
        key = self.store.spec.key(content or "", view=view, augmentation=augmentation)
        if content is None or key not in self.store:
            raise ImageError(
                f"no features of view {view} in the cache",
                where=source.name,
                expected=f"them in {self.store.folder}",
                do="fill the cache with this image",
            )
        return self.store.features(key)
