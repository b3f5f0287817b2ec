"""What is kept of an image to recognise its copies: a few bytes, taken while it is decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qvft.data.formats.hf import RowImage
from qvft.data.sample import ImageFile, ImageSource
from qvft.files import sha256_file

SIDE_PX = 32
HASH_SIDE = 8
TINT_SIDE = 4
_FREQUENCIES = np.cos(
    np.pi * np.outer(np.arange(HASH_SIDE), 2 * np.arange(SIDE_PX) + 1) / (2 * SIDE_PX)
)
_BITS = np.uint64(1) << np.arange(HASH_SIDE * HASH_SIDE, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class ImageSignature:
    """An image in small.

    Attributes:
        content: equal for images of the same bytes.
        hash: 64 bits, see `perceptual_hash`.
        grey: (SIDE_PX, SIDE_PX) uint8, whatever the image's shape.
        tint: (TINT_SIDE, TINT_SIDE, 2) int16, how far blue and red lie from grey.
    """

    content: str
    hash: np.uint64
    grey: np.ndarray
    tint: np.ndarray


def look(source: ImageSource, image: Image.Image) -> ImageSignature:
    """The look of a decoded RGB image."""
    side = (SIDE_PX, SIDE_PX)
    small = image.resize(side, Image.Resampling.BILINEAR, reducing_gap=3.0).convert("YCbCr")
    grey = np.asarray(small.getchannel("Y"))
    cells = small.resize((TINT_SIDE, TINT_SIDE), Image.Resampling.BOX)
    tint = np.asarray(cells)[..., 1:].astype(np.int16) - 128
    return ImageSignature(content_of(source), perceptual_hash(grey), grey, tint)


def content_of(source: ImageSource) -> str:
    """A hash of the encoded bytes; the name where there are none."""
    if isinstance(source, ImageFile):
        return sha256_file(source.path)
    if isinstance(source, RowImage):
        encoded = source.images[source.row][source.column]["bytes"] or b""
        return hashlib.sha256(encoded).hexdigest()
    return source.name


def perceptual_hash(grey: np.ndarray) -> np.uint64:
    """64 bits of a small grey image: which of its 8 x 8 lowest frequencies exceed their median.

    Args:
        grey: (SIDE_PX, SIDE_PX) of any real type.

    Source: the DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions" (2010), section 3.2. It is these few lines, so the package `imagehash`, which brings
    scipy and PyWavelets along, is not used; comparing many hashes would be left to us anyway.
    """
    spectrum = (_FREQUENCIES @ grey.astype(np.float64) @ _FREQUENCIES.T).ravel()
    above = spectrum > np.median(spectrum[1:])
    above[0] = False  # the mean brightness says nothing
    return np.uint64(_BITS[above].sum())
