"""Turning a decoded Pillow image of any mode into RGB without losing what it shows."""

from __future__ import annotations

import numpy as np
from PIL import Image

from qvft.data.images.ink import cmyk_to_rgb
from qvft.data.images.transparency import over_white

_PHOTOMETRIC_TAG, _MIN_IS_WHITE = 262, 0
_SAMPLE_FORMAT_TAG, _UNSIGNED = 339, (1,)


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as a new RGB image.

    Transparent pixels show white, as on a page; a logo of white glyphs on nothing is lost.

    Grey images of 16 or 32 bits or of floats (radiology, height maps) are scaled so that their
    darkest pixel is black and their brightest white: Pillow's own conversion clips at 255, and
    scaling by the type's range leaves 10- and 12-bit scans black. No percentile is cut off, so a
    single hot pixel darkens the rest. An image of one such grey is black; NaN is black. RGB of 16
    bits a channel comes from Pillow as its upper 8 bits.

    CMYK follows an embedded ICC profile, see `ink`; LAB is CIE L*a*b* under D50. Profiles of RGB
    and grey images (Adobe RGB, Display P3) are not applied: the checkpoints were trained on pixels
    read without them. Source: LAVIS and transformers, which call `Image.convert("RGB")`.

    Raises:
        ValueError: Pillow has no conversion from the image's mode.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _stretched(image).convert("RGB")
    if image.has_transparency_data:
        return over_white(image)
    if image.mode == "CMYK":
        return cmyk_to_rgb(image)
    return image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """A grey image of more than 8 bits as 8 bits, its own range stretched over 0 to 255."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags and tags.get(_SAMPLE_FORMAT_TAG, _UNSIGNED) == _UNSIGNED:
        values = values.view(np.uint32)  # Pillow holds 32 bits as signed
    shown = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
    key = image.info.get("transparency")
    if isinstance(key, int):
        shown = shown[shown != key]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    narrow = values.dtype.itemsize == 2  # then a table of all values is quicker than all pixels
    levels = np.arange(2**16) if narrow else values
    scaled = np.clip(levels, low, high, dtype=np.float64)
    scaled -= low
    scaled /= max(high - low, np.finfo(np.float64).tiny)
    if tags.get(_PHOTOMETRIC_TAG) == _MIN_IS_WHITE:  # Pillow inverts files of 8 bits only
        scaled = 1.0 - scaled
    grey = np.rint(np.nan_to_num(scaled) * 255).astype(np.uint8)
    if isinstance(key, int):
        grey[levels == key] = 255
    return Image.fromarray(grey[values] if narrow else grey)
