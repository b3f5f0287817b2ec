"""Largest local difference of two thumbnails: confirms what the perceptual hash proposes.

Shape letters: B pairs of images, S pixels per side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

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
_SMALLER_JPEG = 0.03  # of correlation, between a JPEG decoded smaller and the whole one
_TINT_SIDE = 8
_WHITE, _BLACK = 250, 3
_LINEAR = Image.Resampling.BILINEAR
Box = tuple[float, float, float, float]
Margins = tuple[float, ...]


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
    first, second = blurred(first), blurred(second)
    found = _as_crop(first, second, steps)
    return min(found, _as_crop(second, first, steps)) if steps else found


def grey_differences(
    first: np.ndarray, second: np.ndarray, *, steps: Sequence[float] = COARSE_STEPS
) -> np.ndarray:
    """`image_difference` (B,) of the grey values (B, S, S) of many pairs of `blurred` images.

    Crops are not rounded to whole grey levels, which moves a difference by less than 0.1.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    found = _as_crops(first, second, steps)
    return np.minimum(found, _as_crops(second, first, steps)) if steps else found


def blurred(image: Image.Image) -> Image.Image:
    """The image without the finest detail, which resampling changes."""
    return image.filter(ImageFilter.GaussianBlur(_BLUR))


def _as_crop(whole: Image.Image, part: Image.Image, steps: Sequence[float]) -> float:
    """The difference with `part` taken for a crop of `whole`, both blurred."""
    side = min(whole.width, part.width)
    target = _grey(part.resize((side, side), _LINEAR))
    box = _best_box(whole.convert("L").convert("F"), target, steps)
    if box is None:
        return np.inf
    aligned = whole.resize((side, side), _LINEAR, box=box)
    if _other_colours(aligned, part):
        return np.inf
    return float(_local_difference(target, _grey(aligned)))


def _best_box(whole: Image.Image, target: np.ndarray, steps: Sequence[float]) -> Box | None:
    """Pixels (left, top, right, bottom) of the best crop; None where none correlates."""
    side = len(target)
    centred = target - target.mean()
    power = (centred * centred).sum()

    def box_of(margins: Margins) -> Box:
        left, top, right, bottom = (margin * whole.width for margin in margins)
        return left, top, whole.width - right, whole.width - bottom

    @cache  # the second round over the edges meets margins of the first again
    def correlation(margins: Margins) -> float:
        crop = np.asarray(whole.resize((side, side), _LINEAR, box=box_of(margins)))
        crop = crop - crop.mean()
        powers = float((crop * crop).sum() * power)
        return float((crop * centred).sum()) / powers**0.5 if powers > 1 else -1.0

    margins: Margins = (0.0, 0.0, 0.0, 0.0)
    best = correlation(margins)
    for step in steps:
        for edge in (0, 1, 2, 3) * 2:
            for move in (step, -step):
                moved_edge = min(max(margins[edge] + move, 0.0), MOST_CROP)
                moved = (*margins[:edge], moved_edge, *margins[edge + 1 :])
                if (found := correlation(moved)) > best:
                    margins, best = moved, found
        if best < LEAST_CORRELATION:
            return None
    return box_of(margins) if best > 0 else None


def _as_crops(wholes: np.ndarray, parts: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    """`_as_crop` (B,) of grey images (B, S, S), without colours; margins are in the last step."""
    side = wholes.shape[-1]
    unit = steps[-1] if steps else MOST_CROP
    across, down = _crops(side, unit)
    centred = wholes - _mean(wholes)
    targets = (parts - _mean(parts)).reshape(-1, side**2)
    power = np.vecdot(targets, targets)

    def cropped(rows: np.ndarray, margins: np.ndarray) -> np.ndarray:
        left, top, right, bottom = margins.T
        return down[top, bottom] @ centred[rows] @ across[left, right]

    def scores(rows: np.ndarray, margins: np.ndarray) -> np.ndarray:
        crops = cropped(rows, margins).reshape(-1, side**2)
        variation = np.vecdot(crops, crops) - crops.sum(1) ** 2 / side**2
        powers = variation * power[rows]
        found = np.vecdot(crops, targets[rows]) / np.sqrt(np.maximum(powers, 1))
        return np.where(powers > 1, found, -1.0)

    rows = np.arange(len(wholes))
    margins = np.zeros((len(rows), 4), int)
    best = scores(rows, margins)
    for step in steps:
        for edge in (0, 1, 2, 3) * 2:
            for move in (round(step / unit), -round(step / unit)):
                moved = margins[rows]
                moved[:, edge] = np.clip(moved[:, edge] + move, 0, len(across) - 1)
                changed = moved[:, edge] != margins[rows, edge]
                asked, moved = rows[changed], moved[changed]
                found = scores(asked, moved)
                better = found > best[asked]
                margins[asked[better]], best[asked[better]] = moved[better], found[better]
        rows = rows[best[rows] >= LEAST_CORRELATION - _SMALLER_JPEG]
    rows = rows[best[rows] > 0]
    differences = np.full(len(wholes), np.inf)
    aligned = np.rint(cropped(rows, margins[rows]) + _mean(wholes[rows]))
    differences[rows] = _local_difference(parts[rows], aligned)
    return differences


@cache
def _crops(side: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that resample a crop to its image's size: `down[t, b] @ image @ across[l, r]`.

    Each (N, N, S, S), for margins of 0, 1, ..., N - 1 units on both sides.
    """
    identity, size = Image.fromarray(np.eye(side, dtype=np.float32)), (side, side)
    ends = [place * unit * side for place in range(round(MOST_CROP / unit) + 1)]
    boxes = [(start, 0, side - end, side) for start in ends for end in ends]
    cut = [np.asarray(identity.resize(size, _LINEAR, box=box)) for box in boxes]
    across = np.reshape(cut, (len(ends), len(ends), *size))
    return across, np.ascontiguousarray(across.swapaxes(-1, -2))


def _mean(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=(-2, -1), keepdims=True)


def _local_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The largest over all windows of grey images (..., S, S) that show the same part."""
    shared = _mean((first - _mean(first)) * (second - _mean(second)))
    gain = shared / np.maximum(second.var(axis=(-2, -1), keepdims=True), 1.0)
    predicted = np.clip(gain, 1 / MOST_CONTRAST, MOST_CONTRAST) * second
    predicted += _mean(first - predicted)
    rest = first - predicted
    above, below = predicted > first, predicted < first
    clipped = (first >= _WHITE) & above | (first <= _BLACK) & below
    clipped |= (second >= _WHITE) & below | (second <= _BLACK) & above
    rest[clipped] = 0
    inner = np.s_[..., 1:-1, 1:-1]  # resampling has no neighbours at the border
    rest = rest[inner]
    spread = _window_means(rest**2) - _window_means(rest) ** 2
    detail = sum(_window_means(_steepness(one)[inner]) for one in (first, predicted)) / 2
    return np.sqrt(2 * np.maximum(spread, 0) / (detail + NOISE**2)).max(axis=(-2, -1))


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
    down, across = np.gradient(image, axis=(-2, -1))
    return down**2 + across**2


def _window_means(values: np.ndarray) -> np.ndarray:
    """Means over all windows of WINDOW x WINDOW."""
    before = [(0, 0)] * (values.ndim - 2) + [(1, 0), (1, 0)]
    sums = np.pad(values.astype(np.float64), before).cumsum(-2).cumsum(-1)
    w = WINDOW
    upper, lower = sums[..., :-w, :], sums[..., w:, :]
    return (lower[..., w:] - upper[..., w:] - lower[..., :-w] + upper[..., :-w]) / w**2
