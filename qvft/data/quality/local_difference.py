"""A second look at two images that are alike in small: does any place differ?

An average over a whole image hides what tells pages of one template or slices of one body apart: a
line of text, a crack. Here the place that differs most decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from qvft.data.quality.image_registration import MOST_SCALE, MOST_SHIFT, axis_weights
from qvft.data.quality.image_signature import SIDE_PX

CLOSER_PX = 128
MOST_LOCAL = 0.5
MOST_CONTRAST = 1.35
WINDOW = 9
MOST_TINT = 30.0  # of 255; brightness +10 % moves the strongest tint by 13
GREY_TINT = 6.0
NOISE = 10.0
"""Grey levels: what a JPEG's noise and rounding may do where an image is plain."""

_BLUR = 0.7  # finest detail is what resampling changes; without it copies of half size reach 0.7
_BORDER = 3  # interpolation has no neighbours there
_OVERHANG = 2.0  # pixels that a part may reach beyond the whole, for rounding
_WHITE, _BLACK = 250, 3


def closer_view(image: Image.Image) -> np.ndarray:
    """Brightness, blue and red, (3, S, S) uint8, of a decoded RGB image.

    S is at most CLOSER_PX; a smaller image is not made larger.
    """
    side = min(CLOSER_PX, max(image.size))
    small = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(small.convert("YCbCr")).transpose(2, 0, 1)


def local_difference(first: np.ndarray, second: np.ndarray) -> float:
    """How far two images differ where they differ most, in pixels of movement of what is there.

    One is laid over the other from coarse to fine, as in `alignment.differences`, but as a part of
    a whole: a crop lies inside its original, a dot that stands elsewhere does not. In windows of
    WINDOW pixels the standard deviation of what remains is then divided by what one pixel of
    movement makes there, NOISE added. A pixel that is all white or black in one image says only
    "at least this bright" or "at most": more contrast or brightness clips. Where the colours of
    a window lie more than MOST_TINT apart the images are others, unless one of them is grey.

    Args:
        first, second: `closer_view` of each; the larger is made as small as the other.

    Returns:
        0 for a perfect copy, infinity for another colour; 0 as well where a side is not larger than
        SIDE_PX, since the first look has seen everything there.
    """
    side = min(first.shape[1], second.shape[1])
    if side <= SIDE_PX:
        return 0.0
    views = [np.stack([_resized(channel, side) for channel in view]) for view in (first, second)]
    return min(_laid_over(*views), _laid_over(*reversed(views)))


def _laid_over(fixed_view: np.ndarray, moving_view: np.ndarray) -> float:
    (fixed, *fixed_tints), (moving, *moving_tints) = fixed_view, moving_view
    side = len(fixed)
    place = np.array([1, 0, 1, 0], np.float32)
    for size in [*(s for s in (SIDE_PX, 2 * SIDE_PX) if s < side), side]:
        place = _fit(_resized(fixed, size), _resized(moving, size), place)
    first, second = _blurred(fixed), _blurred(moving)
    laid, inside = _moved(second, place)
    matched = laid * inside
    gain, _ = _least_squares(np.stack([matched.ravel(), inside.ravel()]), first * inside)
    gain = np.clip(gain, 1 / MOST_CONTRAST, MOST_CONTRAST)
    predicted = gain * laid + ((first - gain * laid) * inside).sum() / inside.sum()
    rest = (first - predicted) * inside
    above, below = predicted > first, predicted < first
    unknown = (first >= _WHITE) & above | (first <= _BLACK) & below
    unknown |= (laid >= _WHITE) & below | (laid <= _BLACK) & above
    rest[unknown] = 0
    inside[[*range(_BORDER), *range(-_BORDER, 0)]] = 0
    inside[:, [*range(_BORDER), *range(-_BORDER, 0)]] = 0
    spread = _mean(rest**2) - _mean(rest) ** 2
    detail = (_mean(_steepness(first)) + _mean(_steepness(predicted))) / 2
    apart = np.sqrt(2 * np.maximum(spread, 0) / (detail + NOISE**2))
    # The edge of what both show moves with the border.
    whole = _mean(inside) > 1 - 1e-3
    if not (_is_grey(fixed_tints) or _is_grey(moving_tints)):
        for one, other in zip(fixed_tints, moving_tints, strict=True):
            tints_apart = np.abs(_mean(one - _moved(other, place)[0]))
            apart[tints_apart > MOST_TINT] = np.inf
    return float(apart[whole].max(initial=0))


def _is_grey(tints: Sequence[np.ndarray]) -> bool:
    return max(float(np.sqrt(np.mean((tint - 128) ** 2))) for tint in tints) <= GREY_TINT


def _fit(fixed: np.ndarray, moving: np.ndarray, place: np.ndarray, *, steps: int = 4) -> np.ndarray:
    """The best place (scale and shift across, down) after some Gauss-Newton steps."""
    side = len(fixed)
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    fixed, moving = fixed - fixed.mean(), moving - moving.mean()
    down, across = (np.gradient(moving, axis=axis) * (side - 1) / 2 for axis in (0, 1))
    best, least = place, np.inf
    for step in range(steps + 1):
        laid, inside = _moved(moving, place)
        target = fixed * inside
        rows = np.stack([laid * inside, inside]).reshape(2, -1)
        gain, level = _least_squares(rows, target)
        error = np.mean((target - (gain * laid + level) * inside) ** 2) / inside.mean()
        if error < least:
            best, least = place, error
        if step == steps:
            break
        slope_x, slope_y = _moved(across, place)[0], _moved(down, place)[0]
        moves = (slope_x * grid, slope_x, slope_y * grid[:, None], slope_y)
        design = np.stack([*moves, laid, np.ones_like(laid)]) * inside
        found = _least_squares(design.reshape(6, -1), target)
        contrast = found[4] if abs(found[4]) >= 0.2 else 1
        place = place + np.clip(found[:4] / contrast, -0.05, 0.05)
        place[::2] = np.clip(place[::2], 1 - MOST_SCALE, 1 + MOST_SCALE)
        room = np.minimum(np.abs(1 - place[::2]) + _OVERHANG * 2 / side, MOST_SHIFT)
        place[1::2] = np.clip(place[1::2], -room, room)
    return best


def _least_squares(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    normal = rows @ rows.T + 1e-2 * np.eye(len(rows), dtype=np.float32)
    return np.linalg.solve(normal, rows @ target.ravel())


def _moved(image: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image (S, S) at a place, and 1 where it has something to show there."""
    grid = np.linspace(-1, 1, len(image), dtype=np.float32)
    columns, in_columns = axis_weights(place[None, :2], grid)
    rows, in_rows = axis_weights(place[None, 2:], grid)
    inside = (in_rows[0][:, None] & in_columns[0]).astype(np.float32)
    return rows[0].astype(np.float32) @ image @ columns[0].T.astype(np.float32), inside


def _resized(view: np.ndarray, side: int) -> np.ndarray:
    if len(view) == side:
        return view.astype(np.float32)
    whole = Image.fromarray(view.astype(np.float32))
    return np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR))


def _blurred(view: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(view.round().clip(0, 255).astype(np.uint8))
    return np.asarray(grey.filter(ImageFilter.GaussianBlur(_BLUR))).astype(np.float32)


def _steepness(image: np.ndarray) -> np.ndarray:
    down, across = np.gradient(image)
    return down**2 + across**2


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over all windows of WINDOW x WINDOW."""
    sums = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    w = WINDOW
    return (sums[w:, w:] - sums[:-w, w:] - sums[w:, :-w] + sums[:-w, :-w]) / w**2
