"""Finding features again: an open space of the cache.

Shape letters: I images, P patches, W ViT width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qvft.data.features.cache_spec import FeatureSpec, space_json
from qvft.data.features.content import Contents
from qvft.data.features.folders import SPACE_FILE, read_space, shard_names
from qvft.data.features.index import Index, read_index, require_length
from qvft.data.features.key import features_key
from qvft.data.features.shards import Shard
from qvft.data.sample import ImageSource
from qvft.disk import not_written
from qvft.errors import DataError, ImageError
from qvft.json_files import write_json
from qvft.log import get_logger

logger = get_logger(__name__)


def open_store(cache: Path, space: FeatureSpec) -> Store:
    """The store of a space, whose folder is made and described if it is not yet.

    Raises:
        DataError: the folder cannot be written to.
    """
    folder = cache / space.id
    try:
        read_space(folder)
    except DataError:  # none, or damaged: the folder's name alone says what it is for
        try:
            write_json(folder / SPACE_FILE, space_json(space))
        except OSError as error:
            raise not_written(error, folder) from error
    return Store(folder, space)


class Store:
    """The features of one space that are on the disk, by key.

    Indexes are read when it is made and by `refresh`; records are mapped when they are first asked
    for, and stay where they are. It may be handed to the workers of a data loader.

    Args:
        folder: of the space.
        space: what its features have in common.
    """

    def __init__(self, folder: Path, space: FeatureSpec) -> None:
        self.folder, self.space = folder, space
        self._places: dict[bytes, tuple[Shard, int]] = {}
        self._seen: set[str] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def refresh(self) -> None:
        """Takes in the shards that others have finished since; damaged ones count as missing."""
        for name in shard_names(self.folder):
            if name in self._seen:
                continue
            try:
                index = read_index(self.folder, name)
                require_length(self.folder, index, self.space.record_bytes)
                self.include(index)
            except DataError as error:
                self._seen.add(name)  # so that it is said once
                logger.warning("the features of a shard are left out: %s", error)

    def include(self, index: Index) -> None:
        """Takes in a shard; a key that is there already stays where it is."""
        shard = Shard(self.folder, self.space, index)
        self._seen.add(index.name)
        for number, key in enumerate(index.keys):
            self._places.setdefault(key, (shard, number))

    def key(
        self, content: str, *, view: int = 0, augmentation: Mapping[str, Any] | None = None
    ) -> bytes:
        """The key of an image's features, see `key.features_key`."""
        return features_key(self.space, content, view=view, augmentation=augmentation)

    def features(self, key: bytes) -> Tensor:
        """Features (P, W): a view of the file, not to be altered; see `Shard.features`.

        Raises:
            KeyError: they are not there.
            DataError: they are damaged.
        """
        shard, number = self._places[key]
        return shard.features(number)

    def stacked(self, keys: Sequence[bytes]) -> Tensor:
        """Features (I, P, W) in memory of their own; raises as `features`."""
        return torch.stack([self.features(key) for key in keys])


class Cached:
    """A store asked by image instead of by key.

    Args:
        store: holds the features.
        contents: of the images, as `content.contents_of` gives them.
        augmentation: of views above 0.
    """

    def __init__(
        self, store: Store, contents: Contents, *, augmentation: Mapping[str, Any] | None = None
    ) -> None:
        self.store, self.contents, self.augmentation = store, contents, augmentation

    def __call__(self, sources: Sequence[ImageSource], views: Sequence[int] = ()) -> Tensor:
        """Features (I, P, W) of images as they are, or in one view each.

        Raises:
            ImageError: an image cannot be read, or its features were never computed.
            DataError: features are damaged.
        """
        return self.store.stacked(list(self._keys(sources, views or [0] * len(sources))))

    def _keys(self, sources: Sequence[ImageSource], views: Sequence[int]) -> Iterator[bytes]:
        for source, view in zip(sources, views, strict=True):
            augmentation = self.augmentation if view else None
            content = self.contents.get(source.name)
            if isinstance(content, ImageError):
                raise content
            key = self.store.key(content or "", view=view, augmentation=augmentation)
            if content is None or key not in self.store:
                raise ImageError(
                    f"no features of view {view} in the cache",
                    where=source.name,
                    expected=f"them in {self.store.folder}",
                    do="fill the cache with this image",
                )
            yield key
