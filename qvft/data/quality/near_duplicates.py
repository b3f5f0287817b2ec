"""Near-duplicate images: candidates by perceptual hash, confirmed by local image difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from qvft.data.quality.image_difference import COARSE_STEPS, image_difference
from qvft.data.quality.image_signature import ImageSignature, thumbnail

CLOSER_PX = 128
HASH_BITS = 18
NEAREST = 4
MOST_DIFFERENCE = 0.9
MOST_TINY_DIFFERENCE = 0.5  # without a crop copies reach 0.25, different digits begin at 0.64
_BLOCK = 512


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
