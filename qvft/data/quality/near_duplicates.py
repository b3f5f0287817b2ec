"""Near-duplicate images: candidates by perceptual hash, confirmed by local image difference.

An image's signature (hash and thumbnail) is computed when it is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qvft.data.images.content_hash import content_id
from qvft.data.quality.image_difference import COARSE_STEPS, image_difference
from qvft.data.sample import ImageSource

SIDE_PX = 32
HASH_SIDE = 8
_FREQUENCIES = np.cos(
    np.pi * np.outer(np.arange(HASH_SIDE), 2 * np.arange(SIDE_PX) + 1) / (2 * SIDE_PX)
)
_BITS = np.uint64(1) << np.arange(HASH_SIDE * HASH_SIDE, dtype=np.uint64)
CLOSER_PX = 128
HASH_BITS = 18
NEAREST = 4
MOST_DIFFERENCE = 0.9
MOST_TINY_DIFFERENCE = 0.5  # without a crop copies reach 0.25, different digits begin at 0.64
_BLOCK = 512


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


def closer_view(image: Image.Image) -> Image.Image:
    """A decoded RGB image as a square of at most CLOSER_PX; smaller images are not enlarged."""
    return thumbnail(image, min(CLOSER_PX, max(image.size)))


def near_pairs(
    signatures: Sequence[ImageSignature], closer: Callable[[int], Image.Image]
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, difference), i < j, of near-duplicate images, by index.

    Candidates are, for each image, the NEAREST nearest hashes among the later ones, if at most
    HASH_BITS of 64 bits differ. A pair is a near duplicate if `image_difference` is at most
    MOST_DIFFERENCE, first of the thumbnails, then of the closer views. Tiny images are compared by
    their thumbnails only, without a crop search. A mirrored image is not a duplicate: left and
    right matter in radiographs and texts.

    The constants come from VQA-RAD (315 radiographs), pages of one template and the digits of the
    quickstart (1,797 of 8 x 8 pixels): docs/data_quality.md. Hashes alone do not tell radiographs
    apart: different ones are as near as 8 bits, crops of 3 % as far as 22.

    Args:
        closer: returns `closer_view` of an image by index; called for few images.
    """
    if len(signatures) < 2:
        return []
    found = []
    for i, j in _candidates(np.array([one.hash for one in signatures], np.uint64)):
        first, second = signatures[i], signatures[j]
        tiny = first.tiny or second.tiny
        steps = () if tiny else COARSE_STEPS
        difference = image_difference(first.thumbnail, second.thumbnail, steps=steps)
        if difference <= MOST_DIFFERENCE and not tiny:
            difference = image_difference(closer(i), closer(j))
        if difference <= (MOST_TINY_DIFFERENCE if tiny else MOST_DIFFERENCE):
            found.append((i, j, round(difference, 4)))
    return found


def _candidates(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Index pairs (first, second), first < second, of near hashes."""
    found: list[tuple[int, int]] = []
    for start in range(0, len(hashes), _BLOCK):
        rest = hashes[start:]
        block = rest[:_BLOCK]
        far = np.bitwise_count(block[:, None] ^ rest[None, :])
        far[np.tril_indices(len(block), m=len(rest))] = 64
        for row, distances in enumerate(far):
            near = np.flatnonzero(distances <= HASH_BITS)
            nearest = near[np.argsort(distances[near], kind="stable")[:NEAREST]]
            found += [(start + row, start + int(column)) for column in nearest]
    return found
