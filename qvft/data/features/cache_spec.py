"""Cache key of an image's features, and what it depends on (ViT, preprocessing, dtype, format).

Shape letters: P patches, W ViT width.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from qvft.json_files import sha256_json

if TYPE_CHECKING:
    from torch import Tensor

StoredDtype = Literal["bfloat16", "float32", "int8"]

FORMAT = 2
"""Raised when shards are laid out differently. Spaces of other formats are never read."""

DECODING = 1
"""Raised when `data.images.decoding.decode` gives other pixels of some image than before: its
orientation, transparency, grey or ink. A test pins what it gives."""

_VALUE_BYTES = {"bfloat16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = 4
_LIBRARIES = ("pillow", "torchvision", "transformers")
_SETTINGS_OF_NO_EFFECT = ("auto_map", "image_processor_type", "processor_class")


@dataclass(frozen=True)
class FeatureSpec:
    """What all features of one space of the cache have in common.

    Attributes:
        vit: the ViT's name in listings; the one attribute that is no part of the identity.
        vit_sha256: of its weights, see `weights_sha256`.
        vit_settings: what else determines its output: its config, which layer is read.
        preprocessing: what is done to an image before it, see `preprocessing_of`.
        compute_dtype: what the ViT computes in, e.g. `float32`.
        stored_dtype: what is kept: `float32` exactly, `bfloat16` rounded to nearest, `int8` with
            a float32 scale per token.
        patches: P, tokens per image, with the class token where there is one.
        width: W.
    """

    vit: str
    vit_sha256: str
    preprocessing: Mapping[str, Any]
    compute_dtype: str
    stored_dtype: StoredDtype
    patches: int
    width: int
    vit_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the features depend on, as JSON."""
        return {
            "format": FORMAT,
            "vit_sha256": self.vit_sha256,
            "vit_settings": dict(self.vit_settings),
            "preprocessing": dict(self.preprocessing),
            "compute_dtype": self.compute_dtype,
            "stored_dtype": self.stored_dtype,
            "patches": self.patches,
            "width": self.width,
        }

    @cached_property
    def id(self) -> str:
        """Hex SHA-256 of the identity; the name of the space's folder."""
        return sha256_json(self.identity)

    @property
    def image_bytes(self) -> int:
        """Bytes of an image's P x W values and, with int8, of its P scales."""
        values = self.patches * self.width * _VALUE_BYTES[self.stored_dtype]
        return values + (self.patches * _SCALE_BYTES if self.stored_dtype == "int8" else 0)

    def key(
        self, content: str, *, view: int = 0, augmentation: Mapping[str, Any] | None = None
    ) -> bytes:
        """32 bytes that differ wherever the features of an image may differ.

        Args:
            content: of the image, as `data.images.content_hash.pixels_id` gives it.
            view: 0 is the image as it is; 1, 2, ... are augmented views of it.
            augmentation: what is done to the views, its seed included; only for views above 0, so
                that plain views are shared by recipes with different augmentations.
        """
        assert view >= 0, "views are counted from 0"
        assert bool(view) == (augmentation is not None), "views above 0, and they alone, have one"
        how = sha256_json(dict(augmentation)) if augmentation is not None else ""
        return hashlib.sha256(f"{self.id}\n{content}\n{view}\n{how}".encode()).digest()


def weights_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hex SHA-256 of named weights: their names, types, shapes and bytes, in the order of names.

    The weights of a module in memory and those read one by one from a file give the same where
    names and types agree.
    """
    import torch

    hashes = {}
    for name, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest = hashlib.sha256(flat.numpy().data).hexdigest()
        hashes[name] = [str(tensor.dtype), list(tensor.shape), digest]
    return sha256_json(hashes)


def preprocessing_of(image_processor: Any) -> dict[str, Any]:
    """What decides the pixels that the ViT is given: settings, code by its version, decoding.

    `data.max_image_pixels` is no part of it: it decides whether an image is decoded, not how.
    """
    settings = json.loads(image_processor.to_json_string())
    for name in _SETTINGS_OF_NO_EFFECT:
        settings.pop(name, None)
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        # The settings call the processors of Pillow and of torchvision by one name.
        "processor": type(image_processor).__name__,
        "settings": settings,
        "decoding": DECODING,
        "versions": versions,
    }
