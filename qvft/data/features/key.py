"""The name of one image's features within the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from qvft.data.features.cache_spec import FeatureSpec
from qvft.json_files import sha256_json

KEY_BYTES = 32


def features_key(
    space: FeatureSpec,
    content: str,
    *,
    view: int = 0,
    augmentation: Mapping[str, Any] | None = None,
) -> bytes:
    """32 bytes that differ wherever the features may differ.

    Args:
        space: the ViT, the preprocessing and the format.
        content: of the image, as `content.content_of` gives it.
        view: 0 is the image as it is; 1, 2, ... are augmented views of it.
        augmentation: what is done to the views, its seed included; only for views above 0, so
            that plain views are shared whatever augmentation goes with them.
    """
    assert view >= 0, "views are counted from 0"
    assert bool(view) == (augmentation is not None), "a view above 0 has its augmentation, 0 none"
    how = sha256_json(dict(augmentation)) if augmentation is not None else ""
    return hashlib.sha256(f"{space.id}\n{content}\n{view}\n{how}".encode()).digest()
