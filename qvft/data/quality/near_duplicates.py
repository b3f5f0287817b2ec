"""Near-duplicate images: candidates by perceptual hash, confirmed by local image difference.

An image's signature (hash and grey thumbnail) is computed when it is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from operator import itemgetter

import numpy as np
from PIL import Image

from qvft.cpu_threads import in_threads
from qvft.data.images.content_hash import content_id
from qvft.data.quality.image_difference import (
    COARSE_STEPS,
    blurred,
    grey_differences,
    image_difference,
)
from qvft.data.sample import ImageSource
from qvft.log import get_logger
from qvft.progress import counted

logger = get_logger(__name__)

SIDE_PX = 32
DECODED_SIDE = 3 * SIDE_PX  # least side of a JPEG decoded for it, as in Pillow's Image.thumbnail
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
MARGIN = 0.3
"""By how much a difference of signatures may exceed that of whole images: JPEGs are decoded smaller
for signatures (docs/data_quality.md)."""
MOST_PAIRS = 20_000
"""Pairs that are decoded again, the most similar ones: about 8 ms of CPU time each."""
_BLOCK, _COLUMNS = 32, 4096  # hashes compared at once: their differences fit a core's cache
_VIEWS = 1000  # cached thumbnails: 52 MB
_AHEAD = 64  # images whose candidates are decoded ahead, at most NEAREST each
Views = tuple[Image.Image, Image.Image]


@dataclass(frozen=True, eq=False, slots=True)
class ImageSignature:
    """Perceptual hash and thumbnail of an image, about 1.5 KB.

    Attributes:
        content: equal for byte-identical images; the name if a source has no bytes.
        hash: 64 bits, see `perceptual_hash`.
        grey: (SIDE_PX, SIDE_PX), for any aspect ratio; the grey values of a blurred thumbnail.
        tiny: whether the image is not larger than its thumbnail.
    """

    content: str
    hash: np.uint64
    grey: np.ndarray
    tiny: bool


def sign(source: ImageSource, image: Image.Image) -> ImageSignature:
    """The signature of an RGB image, decoded at DECODED_SIDE or more."""
    small = thumbnail(image, SIDE_PX)
    return ImageSignature(
        content_id(source) or source.name,
        perceptual_hash(np.asarray(small.convert("L"))),
        np.asarray(blurred(small).convert("L")),
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
    signatures: Sequence[ImageSignature], decoded: Callable[[int], Image.Image]
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, difference), i < j, of near-duplicate images, by index.

    Candidates are, for each image, the NEAREST nearest hashes among the later ones, if at most
    HASH_BITS of 64 bits differ. A pair is a near duplicate if `image_difference` is at most
    MOST_DIFFERENCE, first of the thumbnails, then of the closer views. Tiny images are compared by
    their thumbnails only, without a crop search. A mirrored image is not a duplicate: left and
    right matter in radiographs and texts. Most candidates are rejected by their signatures; the
    MOST_PAIRS most similar others are decoded again, in threads ahead of the comparison.

    The constants come from VQA-RAD (315 radiographs), pages of one template and the digits of the
    quickstart (1,797 of 8 x 8 pixels): docs/data_quality.md. Hashes alone do not tell radiographs
    apart: different ones are as near as 8 bits, crops of 3 % as far as 22.

    Args:
        decoded: returns an image by index; called for few images, in threads.
    """

    @lru_cache(maxsize=_VIEWS)
    def views(place: int) -> Views:
        image = decoded(place)
        return thumbnail(image, SIDE_PX), closer_view(image)

    similar = _similar_pairs(signatures)
    if len(similar) > MOST_PAIRS:
        logger.warning(
            "of %d pairs of images with similar thumbnails the %d nearest are compared closely",
            len(similar),
            MOST_PAIRS,
        )
        nearest = sorted(range(len(similar)), key=lambda place: similar[place][2])[:MOST_PAIRS]
        similar = [similar[place] for place in sorted(nearest)]

    def views_of(pairs: Sequence[tuple[int, int, float]]) -> list[tuple[int, int, Views, Views]]:
        return [(i, j, views(i), views(j)) for i, j, _ in pairs]

    def compared(i: int, j: int, one: Views, other: Views) -> float:
        (small, close), (other_small, other_close) = one, other
        if signatures[i].tiny or signatures[j].tiny:
            found = image_difference(small, other_small, steps=())
            return found if found <= MOST_TINY_DIFFERENCE else np.inf
        found = image_difference(small, other_small, steps=COARSE_STEPS)
        return image_difference(close, other_close) if found <= MOST_DIFFERENCE else np.inf

    found = []
    by_first = [list(pairs) for _, pairs in groupby(similar, key=itemgetter(0))]
    with counted("comparing similar images", len(similar)) as count:
        for pair in chain.from_iterable(in_threads(views_of, by_first, ahead=_AHEAD)):
            count.advance()
            difference = compared(*pair)
            if difference <= MOST_DIFFERENCE:
                found.append((*pair[:2], round(difference, 4)))
    return found


def _similar_pairs(signatures: Sequence[ImageSignature]) -> list[tuple[int, int, float]]:
    """Candidates (i, j, difference) whose signatures do not exclude that they are copies."""
    hashes = np.array([one.hash for one in signatures], np.uint64)

    def of_block(start: int) -> list[tuple[int, int, float]]:
        pairs = _candidates(hashes, start)
        if not pairs:
            return []
        both = [(signatures[i], signatures[j]) for i, j in pairs]
        tiny = np.array([one.tiny or other.tiny for one, other in both])
        greys = [np.stack([pair[side].grey for pair in both]) for side in (0, 1)]
        differences = np.where(tiny, MOST_TINY_DIFFERENCE, MOST_DIFFERENCE) + MARGIN
        kept = np.zeros(len(pairs), bool)
        for these, steps in ((tiny, ()), (~tiny, COARSE_STEPS)):
            found = grey_differences(*(one[these] for one in greys), steps=steps)
            kept[these], differences[these] = found <= differences[these], found
        return [(*pairs[place], float(differences[place])) for place in np.flatnonzero(kept)]

    similar: list[tuple[int, int, float]] = []
    with counted("looking for near duplicates of images", len(hashes)) as count:
        for start in range(0, len(hashes), _BLOCK):
            similar += of_block(start)
            count.advance(min(_BLOCK, len(hashes) - start))
    return similar


def _candidates(hashes: np.ndarray, start: int) -> list[tuple[int, int]]:
    """Index pairs (first, second), first < second, of near hashes; the first are a block's."""
    rest = hashes[start:]
    block = rest[:_BLOCK]
    far = np.empty((len(block), len(rest)), np.uint8)
    for column in range(0, len(rest), _COLUMNS):
        columns = slice(column, column + _COLUMNS)
        np.bitwise_count(block[:, None] ^ rest[None, columns], out=far[:, columns])
    far[np.tril_indices(len(block), m=len(rest))] = 64
    found: list[tuple[int, int]] = []
    for row, distances in enumerate(far):
        near = np.flatnonzero(distances <= HASH_BITS)
        nearest = near[np.argsort(distances[near], kind="stable")[:NEAREST]]
        found += [(start + row, start + int(column)) for column in nearest]
    return found
