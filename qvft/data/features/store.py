"""Looks up cached features by key or by image.

Shape letters: I images, P patches, W ViT width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """The store of a spec, whose folder is made if there is none yet.

    Raises:
        DataError: the folder cannot be written to.
    """
    folder = cache / spec.id
    found = {name: value for name, value in description(folder).items() if name != "vit"}
    if sha256_json(found) != spec.id:  # none yet, or damaged
        try:
            write_json(folder / SPACE_FILE, {"vit": spec.vit, **spec.identity})
        except OSError as error:
            raise not_written(error, folder) from error
    return Store(folder, spec)


class Store:
    """The features of one space that are on the disk, by key.

    Headers are read when it is made and by `refresh`; a shard is mapped when it is first read. It
    may be handed to the workers of a data loader.

    Args:
        folder: of the space.
        spec: what its features have in common.

    Attributes:
        damaged: shards that cannot be used and count as missing; `fill` removes them.
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
        """Takes in the shards that other processes have written since."""
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
        """Writes a shard and takes it in, unless it is empty; see `write_shard`."""
        if not keys:
            return
        path = write_shard(self.folder, keys, chunks)
        self._seen.add(path)
        self._include(path, keys)

    def _include(self, path: Path, keys: Sequence[bytes]) -> None:
        shard = Shard(path, self.spec)
        for number, key in enumerate(keys):
            self._places.setdefault(key, (shard, number))

    def features(self, key: bytes) -> Tensor:
        """Features (P, W): a view of the file, not to be altered; see `Shard.features`.

        Raises:
            KeyError: they are not there.
            DataError: their file is gone or was cut.
        """
        shard, number = self._places[key]
        return shard.features(number)

    def stacked(self, keys: Sequence[bytes]) -> Tensor:
        """Features (I, P, W) in memory of their own; raises as `features`."""
        return torch.stack([self.features(key) for key in keys])


class Cached:
    """Features by image: what a `Collator` takes as `features`.

    Args:
        store: holds the features.
        ids: of the images, as `content_hash.pixel_ids` gives them.
        augmentation: of views above 0.
    """

    def __init__(
        self, store: Store, ids: PixelIds, *, augmentation: Mapping[str, Any] | None = None
    ) -> None:
        self.store, self.ids, self.augmentation = store, ids, augmentation

    def __call__(self, sources: Sequence[ImageSource], views: Sequence[int] = ()) -> Tensor:
        """Features (I, P, W) of images as they are, or in one view each.

        Raises:
            ImageError: an image cannot be read, or its features were never computed.
            DataError: a shard is gone or was cut.
        """
        return self.store.stacked(list(self._keys(sources, views or [0] * len(sources))))

    def _keys(self, sources: Sequence[ImageSource], views: Sequence[int]) -> Iterator[bytes]:
        for source, view in zip(sources, views, strict=True):
            augmentation = self.augmentation if view else None
            content = self.ids.get(source.name)
            if isinstance(content, ImageError):
                raise content
            key = self.store.spec.key(content or "", view=view, augmentation=augmentation)
            if content is None or key not in self.store:
                raise ImageError(
                    f"no features of view {view} in the cache",
                    where=source.name,
                    expected=f"them in {self.store.folder}",
                    do="fill the cache with this image",
                )
            yield key
