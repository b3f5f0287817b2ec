"""Turning a decoded Pillow image of any mode into RGB without losing what it shows."""

from __future__ import annotations

import numpy as np
from PIL import Image

_MIN_IS_WHITE = 0
_PHOTOMETRIC_TAG = 262


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as a new RGB image.

    Transparent pixels show white. Grey images of 16 or 32 bits or of floats (radiology, height
    maps) are scaled so that their darkest pixel is black and their brightest white: Pillow's own
    conversion clips at 255, and scaling by the type's range leaves 10- and 12-bit scans black.
    An image of one such grey is black. RGB of 16 bits a channel comes from Pillow as 8 bits.

    Raises:
        ValueError: Pillow has no conversion from the image's mode.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _stretched(image).convert("RGB")
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, straight.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """A grey image of more than 8 bits as 8 bits, its own range stretched over 0 to 255."""
    values = np.asarray(image).astype(np.float32)
    transparency = image.info.get("transparency")
    hidden = values == transparency if isinstance(transparency, int) else np.zeros(1, dtype=bool)
    shown = values[np.isfinite(values) & ~hidden]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    scaled = np.nan_to_num((np.clip(values, low, high) - low) / max(high - low, 1e-30))
    if _is_min_white(image):
        scaled = 1.0 - scaled
    scaled = np.where(hidden, 1.0, scaled)
    return Image.fromarray(np.rint(scaled * 255).astype(np.uint8))


def _is_min_white(image: Image.Image) -> bool:
    """Whether a 16-bit TIFF stores white as 0; Pillow inverts 8-bit files of that kind only."""
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC_TAG) == _MIN_IS_WHITE
