"""Converts a decoded Pillow image of any mode to RGB."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from qvft.data.images.grey import grey_levels
from qvft.data.images.transparency import over_white

_PHOTOMETRIC_TAG, _MIN_IS_WHITE = 262, 0
_SAMPLE_FORMAT_TAG, _UNSIGNED = 339, (1,)


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as a new RGB image.

    Transparent pixels become white, so a white logo on transparent background is lost.

    Grey images of 16 or 32 bits or of floats (radiology, height maps) are scaled so that their
    darkest pixel is black and their brightest white: Pillow's own conversion clips at 255, and
    scaling by the type's range leaves 10- and 12-bit scans black. No percentile is cut off, so a
    single hot pixel darkens the rest. An image of one such grey is black; NaN is black. RGB of 16
    bits a channel comes from Pillow as its upper 8 bits.

    CMYK uses an embedded ICC profile; LAB is CIE L*a*b* under D50. Profiles of RGB
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
        return _cmyk_to_rgb(image)
    return image.convert("RGB")


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """A CMYK image as sRGB: by its ICC profile if a usable one is embedded, else by Pillow's rule.

    Without a profile, CMYK has no defined colour; Pillow's rule is red = (255 - cyan) * (255 -
    black) / 255, which is more saturated than print.
    """
    profile = image.info.get("icc_profile")
    if profile:
        try:
            transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                "CMYK",
                "RGB",
                renderingIntent=ImageCms.Intent.PERCEPTUAL,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,  # so that full CMYK is black
            )
            return transform.apply(image)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # damaged, or an RGB profile: ignored
    return image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """A grey image of more than 8 bits scaled from its own range to 8 bits."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags and tags.get(_SAMPLE_FORMAT_TAG, _UNSIGNED) == _UNSIGNED:
        values = values.view(np.uint32)  # Pillow holds 32 bits as signed
    key = image.info.get("transparency")
    hidden = key if isinstance(key, int) else None
    low, high = _range(values, hidden)
    inverted = tags.get(_PHOTOMETRIC_TAG) == _MIN_IS_WHITE  # Pillow inverts files of 8 bits only
    if values.dtype.itemsize == 2:  # a lookup table is faster
        table = grey_levels(np.arange(2**16), low, high, inverted=inverted, hidden=hidden)
        return Image.fromarray(table[values])
    grey = np.empty(values.shape, np.uint8)
    for rows in _bands(values):
        grey[rows] = grey_levels(values[rows], low, high, inverted=inverted, hidden=hidden)
    return Image.fromarray(grey)


def _bands(values: np.ndarray) -> Iterator[slice]:
    """Slices of rows, a million pixels each, to limit memory."""
    height, width = values.shape
    step = max(1, 2**20 // max(width, 1))
    return (slice(start, start + step) for start in range(0, height, step))


def _range(values: np.ndarray, hidden: int | None) -> tuple[float, float]:
    """Smallest and largest visible value; (0, 0) if there is none."""
    ends: list[float] = []
    for rows in _bands(values):
        shown = values[rows]
        if shown.dtype.kind == "f":
            shown = shown[np.isfinite(shown)]
        if hidden is not None:
            shown = shown[shown != hidden]
        if shown.size:
            ends += [float(shown.min()), float(shown.max())]
    return (min(ends), max(ends)) if ends else (0.0, 0.0)
