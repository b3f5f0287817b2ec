"""How much room features take, asked before the first is computed."""

from __future__ import annotations

from pathlib import Path

from qvft.data.features.cache_spec import FeatureSpec
from qvft.errors import RecipeError
from qvft.files import require_space

_INDEX_BYTES = 128
"""Of a record's key and checksum in its shard's index, rounded up."""


def features_bytes(space: FeatureSpec, images: int, *, views: int = 1) -> int:
    """Bytes on the disk of the features of `images`, each in `views` views."""
    return images * views * (space.record_bytes + _INDEX_BYTES)


def require_room(
    cache: Path,
    space: FeatureSpec,
    images: int,
    *,
    views: int = 1,
    plain: int = 0,
    present: int = 0,
    limit_bytes: int | None = None,
) -> int:
    """Bytes that are still to be written for `images`, after checking that they may and can be.

    Args:
        cache: where they will be written.
        space: whose features.
        images: of different content.
        views: of each image.
        plain: further images, of which one view is wanted.
        present: records of these that are there already; they count for the limit alone.
        limit_bytes: what the features of these images may take together; None: any.

    Raises:
        RecipeError: they would take more than the limit.
        SpaceError: the disk has not that much room.
    """
    whole = features_bytes(space, images, views=views) + features_bytes(space, plain)
    if limit_bytes is not None and whole > limit_bytes:
        seen = f" in {views} views each" if views > 1 else ""
        if plain and views > 1:
            seen = f", {images} of them in {views} views each,"
        raise RecipeError(
            f"the features of {images + plain} images{seen} take {whole / 1e9:.3g} GB "
            f"({space.record_bytes} bytes each, {space.stored_dtype})",
            where="data.features",
            expected=f"at most {limit_bytes / 1e9:.3g} GB",
            do="raise the limit, keep them in fewer bytes"
            + (", have fewer views" if views > 1 else "")
            + ", or turn the cache off",
        )
    missing = whole - features_bytes(space, present)
    require_space(cache, missing)
    return missing
