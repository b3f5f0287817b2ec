"""What all features of one folder share: the ViT, what is done to an image before it, the format.

Shape letters: P patches, W ViT width.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from qvft.errors import DataError
from qvft.json_files import sha256_json

if TYPE_CHECKING:
    from torch import Tensor

StoredDtype = Literal["bfloat16", "float32", "int8"]

LAYOUT = 1
"""Raised when records or indexes of shards are laid out differently."""

DECODING = 1
"""Raised when `data.images.decoding.decode` gives other pixels of some image than before: its
orientation, transparency, grey or ink. A test pins what it gives."""

_BYTES = {"bfloat16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = 4
_ALIGNED_BYTES = 64
_LIBRARIES = ("pillow", "torchvision", "transformers")
_SETTINGS_OF_NO_EFFECT = ("auto_map", "image_processor_type", "processor_class")


@dataclass(frozen=True)
class FeatureSpec:
    """What has to be equal for one feature to stand for another.

    Attributes:
        vit: what listings call the ViT; the one attribute that is no part of the identity.
        vit_sha256: of its weights, see `weights_sha256`.
        vit_settings: what else determines its output: its config, which layer is read.
        preprocessing: what is done to an image before it, see `preprocessing_of`.
        compute_dtype: what the ViT calculates in, e.g. `float32`.
        stored_dtype: what is kept: `float32` exactly, `bfloat16` rounded to nearest, `int8` with
            a float32 scale per token.
        patches: P, tokens of an image, with the class token where there is one.
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
            "layout": LAYOUT,
            "byte_order": sys.byteorder,
            "vit_sha256": self.vit_sha256,
            "vit_settings": dict(self.vit_settings),
            "preprocessing": dict(self.preprocessing),
            "compute_dtype": self.compute_dtype,
            "stored_dtype": self.stored_dtype,
            "patches": self.patches,
            "width": self.width,
        }

    @property
    def id(self) -> str:
        """Hex SHA-256 of the identity; the name of the space's folder."""
        return sha256_json(self.identity)

    @property
    def values_bytes(self) -> int:
        """Bytes of an image's P x W values, without scales."""
        return self.patches * self.width * _BYTES[self.stored_dtype]

    @property
    def payload_bytes(self) -> int:
        """Bytes of an image's values and, with int8, of its scales behind them."""
        scales = -self.values_bytes % _SCALE_BYTES + self.patches * _SCALE_BYTES
        return self.values_bytes + (scales if self.stored_dtype == "int8" else 0)

    @property
    def record_bytes(self) -> int:
        """Bytes from one record of a shard to the next: the payload, filled up to 64."""
        return self.payload_bytes + -self.payload_bytes % _ALIGNED_BYTES


def space_json(space: FeatureSpec) -> dict[str, Any]:
    """A space as its folder keeps it."""
    return {"vit": space.vit, **space.identity}


def space_of(content: Any, *, where: str) -> FeatureSpec:
    """The space that a folder's `space.json` describes.

    Raises:
        DataError: it is none of this version's layout, or incomplete.
    """
    try:
        known = {name: content[name] for name in FeatureSpec.__dataclass_fields__}
        space = FeatureSpec(**known)
        whole = space_json(space) == content and space.stored_dtype in get_args(StoredDtype)
        whole = whole and isinstance(space.patches * space.width, int)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise DataError(
            "no description of features",
            where=where,
            expected=f"one of layout {LAYOUT}, written on a machine of this byte order",
            do="fill this space again, which writes it anew, or remove the space",
        )
    return space


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
