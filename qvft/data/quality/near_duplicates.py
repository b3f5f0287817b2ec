"""Which images look alike though their files differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qvft.data.quality.image_registration import differences
from qvft.data.quality.image_signature import ImageSignature
from qvft.data.quality.local_difference import GREY_TINT, MOST_LOCAL, local_difference

HASH_BITS = 18
NEAREST = 4
MOST_DIFFERENCE = 0.15
_BLOCK = 512


def near_pairs(
    looks: Sequence[ImageSignature], closer: Callable[[int], np.ndarray]
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, difference), i < j, of images that are copies of each other, by place.

    The hash finds candidates: for each image the NEAREST nearest among the later ones, if at most
    HASH_BITS of 64 bits differ. Of these `alignment.differences` keeps what differs by at most
    MOST_DIFFERENCE, `closer.local_difference` what differs nowhere by more than MOST_LOCAL (so that
    pages of one template are told apart), and the tints must not speak against it (a grey copy of a
    coloured image is one, a blue copy of a red one is not). A mirrored image is another image: left
    and right matter in radiographs and texts.

    The constants come from VQA-RAD (315 radiographs) and the digits of the quickstart (1,797 of
    8 x 8 pixels): docs/data_quality.md has the table. Hashes alone do not tell radiographs apart:
    different ones lie as near as 8 bits, crops of 3 % as far as 22. Their differences after
    alignment do: crops reach 0.14, different radiographs begin at 0.25 and digits at 0.17.

    Args:
        looks: one an image.
        closer: gives `closer.closer_view` of an image by its place; called for few images.

    Work: 10^10 / 2 comparisons of 64 bits in numpy for 100,000 images, then at most NEAREST
    alignments an image.
    """
    if len(looks) < 2:
        return []
    firsts, seconds = _candidates(np.array([one.hash for one in looks], np.uint64))
    greys = np.stack([one.grey for one in looks])
    found = []
    for start in range(0, len(firsts), 1 << 14):
        part = slice(start, start + (1 << 14))
        difference = differences(greys[firsts[part]], greys[seconds[part]])
        for place in np.flatnonzero(difference <= MOST_DIFFERENCE):
            i, j = int(firsts[start + place]), int(seconds[start + place])
            if not _tints_agree(looks[i].tint, looks[j].tint):
                continue
            if local_difference(closer(i), closer(j)) <= MOST_LOCAL:
                found.append((i, j, round(float(difference[place]), 4)))
    return found


def _candidates(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (first, second), first < second, of near hashes."""
    firsts, seconds = [], []
    for start in range(0, len(hashes), _BLOCK):
        rest = hashes[start:]
        block = rest[:_BLOCK]
        far = np.bitwise_count(block[:, None] ^ rest[None, :])
        far[np.tril_indices(len(block), m=len(rest))] = 64
        rows, columns = np.nonzero(far <= HASH_BITS)
        order = np.lexsort((far[rows, columns], rows))
        rows, columns = rows[order], columns[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = rank < NEAREST
        firsts.append(rows[kept] + start)
        seconds.append(columns[kept] + start)
    return np.concatenate(firsts), np.concatenate(seconds)


def _tints_agree(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two images may be copies by their colours; a grey one may be a copy of any."""
    sizes = [float(np.sqrt(np.mean(tint.astype(np.float64) ** 2))) for tint in (first, second)]
    if min(sizes) <= GREY_TINT:
        return True
    apart = np.sqrt(np.mean((first - second).astype(np.float64) ** 2))
    return bool(apart <= 0.5 * max(sizes))
