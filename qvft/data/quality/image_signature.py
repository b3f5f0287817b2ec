"""Perceptual hash and thumbnail of an image, computed when it is decoded, for deduplication."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from qvft.data.images.content_hash import content_id
from qvft.data.sample import ImageSource

SIDE_PX = 32
HASH_SIDE = 8
_FREQUENCIES = np.cos(
    np.pi * np.outer(np.arange(HASH_SIDE), 2 * np.arange(SIDE_PX) + 1) / (2 * SIDE_PX)
)
_BITS = np.uint64(1) << np.arange(HASH_SIDE * HASH_SIDE, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class ImageSignature:
    """Perceptual hash and thumbnail of an image.

    Attributes:
        content: equal for byte-identical images; the name if a source has no bytes.
        hash: 64 bits, see `perceptual_hash`.
        thumbnail: (SIDE_PX, SIDE_PX) RGB, for any aspect ratio.
        tiny: whether the image is not larger than its thumbnail.
    """

    content: str
    hash: np.uint64
    thumbnail: Image.Image
    tiny: bool


def sign(source: ImageSource, image: Image.Image) -> ImageSignature:
    """The signature of a decoded RGB image."""
    small = thumbnail(image, SIDE_PX)
    return ImageSignature(
        content_id(source) or source.name,
        perceptual_hash(np.asarray(small.convert("L"))),
        small,
        tiny=max(image.size) <= SIDE_PX,
    )


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The image as a square of `side` pixels."""
    return image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)


def perceptual_hash(grey: np.ndarray) -> np.uint64:
    """64 bits of a small grey image: which of its 8 x 8 lowest frequencies exceed their median.

    Args:
        grey: (SIDE_PX, SIDE_PX) of any real type.

    Source: the DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions" (2010), section 3.2. The package `imagehash` is not used, since it needs scipy and
    PyWavelets.
    """
    spectrum = (_FREQUENCIES @ grey.astype(np.float64) @ _FREQUENCIES.T).ravel()
    above = spectrum > np.median(spectrum[1:])
    above[0] = False  # the mean brightness is not informative
    return np.uint64(_BITS[above].sum())
