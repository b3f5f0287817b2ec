"""Cache key of an image's features, and what it depends on (ViT, preprocessing, dtype, format).

Shape letters: P patches, W ViT width.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from qvft.json_files import sha256_json

if TYPE_CHECKING:
    from torch import Tensor

StoredDtype = Literal["bfloat16", "float32", "int8"]

FORMAT = 2
"""Version of the shard format. Caches of other versions are never read."""

DECODING = 1
"""Version of image decoding, increased when `data.images.decoding.decode` changes pixels
(orientation, transparency, grey, CMYK). A test pins the output."""

_VALUE_BYTES = {"bfloat16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = 4
_LIBRARIES = ("pillow", "torchvision", "transformers")


@dataclass(frozen=True)
class FeatureSpec:
    """Properties that all features in a cache folder share.

    Attributes:
        vit: the ViT's name in listings; the only attribute that is not part of the identity.
        vit_sha256: `weights_sha256` of its weights.
        preprocessing: `preprocessing_of` its image processor.
        compute_dtype: dtype of the ViT, e.g. `float32`.
        stored_dtype: `float32` exactly, `bfloat16` rounded to nearest, `int8` with a float32 scale
            per token.
        patches, width: P, tokens per image with the class token, and W.
        vit_settings: what else determines its output: configuration, kernel.
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
        """Everything that determines the features, as JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "vit"}
        return {"format": FORMAT, **fields}

    @cached_property
    def id(self) -> str:
        """Hex SHA-256 of the identity; name of the folder."""
        return sha256_json(self.identity)

    @property
    def image_bytes(self) -> int:
        """Bytes of an image's P x W values and, with int8, its P scales."""
        values = self.patches * self.width * _VALUE_BYTES[self.stored_dtype]
        return values + (self.patches * _SCALE_BYTES if self.stored_dtype == "int8" else 0)

    def key(
        self, content: str, *, view: int = 0, augmentation: Mapping[str, Any] | None = None
    ) -> bytes:
        """Cache key of 32 bytes, which differs if the features may differ.

        Args:
            content: content hash of the image, from `content_hash.pixels_id`.
            view: 0 is the unaugmented image; 1, 2, ... are augmented views.
            augmentation: settings with seed; only of views above 0, so that recipes with different
                augmentations share view 0.
        """
        assert view >= 0, "views are counted from 0"
        assert bool(view) == (augmentation is not None), "views above 0, and they alone, have one"
        how = sha256_json(dict(augmentation)) if augmentation is not None else ""
        return hashlib.sha256(f"{self.id}\n{content}\n{view}\n{how}".encode()).digest()


def weights_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hex SHA-256 of named weights: names, dtypes, shapes and bytes, in the order of names."""
    import torch

    hashes = {}
    for name, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest = hashlib.sha256(flat.numpy().data).hexdigest()
        hashes[name] = [str(tensor.dtype), list(tensor.shape), digest]
    return sha256_json(hashes)


def preprocessing_of(image_processor: Any) -> dict[str, Any]:
    """Everything that determines the ViT's pixel values: settings, code version, decoding."""
    settings = json.loads(image_processor.to_json_string())
    for name in ("auto_map", "image_processor_type", "processor_class"):  # without effect
        settings.pop(name, None)
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        # The settings have one name for the processors of Pillow and of torchvision.
        "processor": type(image_processor).__name__,
        "settings": settings,
        "decoding": DECODING,
        "versions": versions,
    }
