"""Largest local difference of two thumbnails: confirms what the perceptual hash proposes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

WINDOW = 9
NOISE = 10.0
"""Noise floor in grey levels, for JPEG artefacts and rounding in flat regions."""
MOST_CROP = 0.08
MOST_CONTRAST = 1.35
MOST_TINT = 30.0  # of 255; brightness +10 % moves the strongest tint by 13
GREY_TINT = 6.0
LEAST_CORRELATION = 0.8  # of the coarsest fit; copies of VQA-RAD reach 0.85, crops of 5 % included

FINE_STEPS = (0.032, 0.016, 0.008, 0.004, 0.002)
"""Step sizes of the crop search, as shares of a side."""
COARSE_STEPS = FINE_STEPS[:3]
_BLUR = 0.7  # resampling changes the finest detail; without it copies of half size reach 0.7
_TINT_SIDE = 8
_WHITE, _BLACK = 250, 3
Box = tuple[float, float, float, float]


def image_difference(
    first: Image.Image, second: Image.Image, *, steps: Sequence[float] = FINE_STEPS
) -> float:
    """The largest local difference of two images, one of which may be a crop of the other.

    The crop (up to MOST_CROP on each side) is the one whose grey values correlate most, found by
    moving one edge at a time. After contrast and brightness are matched, in each window of WINDOW
    pixels the standard deviation of the rest is divided by the effect of one pixel of movement
    there plus NOISE. Clipped pixels (white or black) count only in the direction that clipping
    allows. An average over the image would hide what distinguishes pages of one template.

    Args:
        first, second: square RGB images; the larger is compared at the size of the smaller.
        steps: of the search for the crop; none: both show the same part.

    Returns:
        0 for a perfect copy, about 1 for one pixel of movement; infinity where grey values do not
        correlate, an image is plain, or colours differ (a grey copy of a coloured image is one).
    """
    found = _as_crop(first, second, steps)
    return min(found, _as_crop(second, first, steps)) if steps else found


def _as_crop(whole: Image.Image, part: Image.Image, steps: Sequence[float]) -> float:
    """The difference with `part` taken for a crop of `whole`."""
    side = min(whole.width, part.width)
    whole, part = (image.filter(ImageFilter.GaussianBlur(_BLUR)) for image in (whole, part))
    target = _grey(part.resize((side, side), Image.Resampling.BILINEAR))
    box = _best_box(whole.convert("L").convert("F"), target, steps)
    if box is None:
        return np.inf
    aligned = whole.resize((side, side), Image.Resampling.BILINEAR, box=box)
    if _other_colours(aligned, part):
        return np.inf
    return _local_difference(target, _grey(aligned))


def _best_box(whole: Image.Image, target: np.ndarray, steps: Sequence[float]) -> Box | None:
    """Pixels (left, top, right, bottom) of the best crop; None where none correlates."""
    side = len(target)

    def box_of(margins: Sequence[float]) -> Box:
        left, top, right, bottom = (margin * whole.width for margin in margins)
        return left, top, whole.width - right, whole.width - bottom

    def score(margins: Sequence[float]) -> float:
        crop = whole.resize((side, side), Image.Resampling.BILINEAR, box=box_of(margins))
        return _correlation(np.asarray(crop), target)

    margins = [0.0] * 4
    best = score(margins)
    for step in steps:
        for edge in (0, 1, 2, 3) * 2:
            for move in (step, -step):
                moved = margins.copy()
                moved[edge] = min(max(moved[edge] + move, 0.0), MOST_CROP)
                if moved != margins and (found := score(moved)) > best:
                    margins, best = moved, found
        if best < LEAST_CORRELATION:
            return None
    return box_of(margins) if best > 0 else None


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    power = float((first * first).sum() * (second * second).sum())
    return float((first * second).sum()) / power**0.5 if power > 1 else -1.0


def _local_difference(first: np.ndarray, second: np.ndarray) -> float:
    """The largest over all windows of two grey images (S, S) that show the same part."""
    gain = ((first - first.mean()) * (second - second.mean())).mean() / max(second.var(), 1.0)
    predicted = np.clip(gain, 1 / MOST_CONTRAST, MOST_CONTRAST) * second
    predicted += (first - predicted).mean()
    rest = first - predicted
    above, below = predicted > first, predicted < first
    clipped = (first >= _WHITE) & above | (first <= _BLACK) & below
    clipped |= (second >= _WHITE) & below | (second <= _BLACK) & above
    rest[clipped] = 0
    inner = slice(1, -1)  # resampling has no neighbours at the border
    rest = rest[inner, inner]
    spread = _window_means(rest**2) - _window_means(rest) ** 2
    detail = sum(_window_means(_steepness(one)[inner, inner]) for one in (first, predicted)) / 2
    return float(np.sqrt(2 * np.maximum(spread, 0) / (detail + NOISE**2)).max())


def _other_colours(first: Image.Image, second: Image.Image) -> bool:
    cells = (_TINT_SIDE, _TINT_SIDE)
    tints = [
        np.asarray(image.convert("YCbCr").resize(cells, Image.Resampling.BOX))[..., 1:] - 128.0
        for image in (first, second)
    ]
    if min(np.sqrt(np.mean(tint**2)) for tint in tints) <= GREY_TINT:
        return False
    return bool(np.abs(tints[0] - tints[1]).max() > MOST_TINT)


def _grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")).astype(np.float32)


def _steepness(image: np.ndarray) -> np.ndarray:
    down, across = np.gradient(image)
    return down**2 + across**2


def _window_means(values: np.ndarray) -> np.ndarray:
    """Means over all windows of WINDOW x WINDOW."""
    sums = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    w = WINDOW
    return (sums[w:, w:] - sums[:-w, w:] - sums[w:, :-w] + sums[:-w, :-w]) / w**2
