"""What the cache is to hold of a recipe's images: each as it is, some in augmented views too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qvft.data.features.content import Contents
from qvft.data.features.store import Store
from qvft.data.sample import ImageSource
from qvft.errors import ImageError


@dataclass(frozen=True)
class CacheRequest:
    """Images by name, and in how many views each is wanted.

    Attributes:
        contents: of all images.
        named: all images by name.
        in_views: those among them that are seen in augmented views as well.
        views: records of each of the latter, view 0 among them.
        augmentation: what makes the views, as it stands in a record's key.
    """

    contents: Contents
    named: Mapping[str, ImageSource]
    in_views: Mapping[str, ImageSource]
    views: int
    augmentation: Mapping[str, Any] | None

    def groups(self) -> tuple[tuple[list[ImageSource], int], ...]:
        """The images with one record each, and those with several: (images, records of each)."""
        seen = self.seen()
        plain = [one for name, one in self.named.items() if self.contents[name] not in seen]
        return (plain, 1), (list(self.in_views.values()), self.views)

    def seen(self) -> set[str]:
        """Contents that are wanted in views and can be read."""
        return self._readable(self.in_views)

    def plain(self) -> set[str]:
        """Contents that are wanted as they are alone and can be read."""
        return self._readable(self.named) - self.seen()

    def keys(self, store: Store) -> list[bytes]:
        """The keys of all records that are wanted."""
        seen = self.seen()
        keys = [store.key(content) for content in seen | self.plain()]
        for view in range(1, self.views):
            keys += [store.key(c, view=view, augmentation=self.augmentation) for c in seen]
        return keys

    def _readable(self, names: Mapping[str, ImageSource]) -> set[str]:
        found = (self.contents[name] for name in names)
        return {content for content in found if not isinstance(content, ImageError)}
