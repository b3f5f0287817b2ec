"""How much two small images differ once one is laid over the other as well as it goes.

Shape letters: N pairs, S pixels a side.
"""

from __future__ import annotations

import numpy as np

STEPS = 5
FIRST_STEPS = 2
MOST_SCALE, MOST_SHIFT = 0.1, 0.1  # of half a side: a crop of 3 % on each side needs 0.06
_RIDGE = 1e-2
_BATCH = 64
_PLAIN = 1e-6
_HOPELESS = 1.5  # pairs that differ more after FIRST_STEPS are given up


def differences(firsts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """For each pair of images how far their edges differ, in units of the images' own detail.

    Laying over finds scale and shift along each axis, contrast and brightness by Gauss-Newton
    steps (Lucas and Kanade 1981; the inner image is moved by cubic interpolation), so that a border
    crop, another size or brightness cost little. What is compared then is the correlation of the
    two gradient fields where both images are, since plain grey values agree between most
    radiographs: c. A smooth image agrees with much, so 1 - c is divided by what it is between the
    smoother image and itself, moved by one pixel.

    Args:
        firsts, seconds: (N, S, S) grey values.

    Returns:
        (N,): 0 is a copy, 1 what one pixel of movement makes; infinity where an image is plain.
    """
    found = [
        _batch(
            firsts[start : start + _BATCH].astype(np.float32),
            seconds[start : start + _BATCH].astype(np.float32),
        )
        for start in range(0, len(firsts), _BATCH)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _batch(firsts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    room = 1 - np.maximum(_moved_by_one(firsts), _moved_by_one(seconds))
    agree = _agreement(firsts, seconds, steps=FIRST_STEPS)
    near = 1 - agree < _HOPELESS * room
    if near.any():
        # Either may be the cropped one, and the fit goes better from the whole one to the part.
        whole, part = firsts[near], seconds[near]
        both = _agreement(whole, part, steps=STEPS), _agreement(part, whole, steps=STEPS)
        agree[near] = np.maximum(*both)
    return np.where(room > _PLAIN, (1 - agree) / np.maximum(room, _PLAIN), np.inf)


def _agreement(fixed: np.ndarray, moving: np.ndarray, *, steps: int) -> np.ndarray:
    """The best gradient correlation (N,) over the steps of the fit; both (N, S, S)."""
    fixed = fixed - fixed.mean((1, 2), keepdims=True)
    moving = moving - moving.mean((1, 2), keepdims=True)
    side = fixed.shape[1]
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    down, across = (np.gradient(moving, axis=axis) * (side - 1) / 2 for axis in (1, 2))
    place = np.tile(
        np.array([1, 0, 1, 0], np.float32), (len(fixed), 1)
    )  # scale and shift across, down
    best = np.full(len(fixed), -1, np.float32)
    for step in range(steps + 1):
        columns, in_columns = axis_weights(place[:, :2], grid)
        rows, in_rows = axis_weights(place[:, 2:], grid)
        columns = columns.transpose(0, 2, 1)
        laid = rows @ moving @ columns
        inside = (in_rows[:, :, None] & in_columns[:, None, :]).astype(np.float32)
        best = np.maximum(best, _edge_correlation(fixed, laid, inside))
        if step == steps:
            break
        slope_x, slope_y = rows @ across @ columns, rows @ down @ columns
        parts = (slope_x * grid, slope_x, slope_y * grid[:, None], slope_y, laid)
        design = np.stack([*parts, np.ones_like(laid)], axis=1) * inside[:, None]
        design = design.reshape(len(fixed), 6, -1)
        normal = design @ design.transpose(0, 2, 1) + _RIDGE * np.eye(6, dtype=np.float32)
        target = design @ (fixed * inside).reshape(len(fixed), -1, 1)
        fit = np.linalg.solve(normal, target)[..., 0]
        contrast = np.where(np.abs(fit[:, 4:5]) < 0.2, 1, fit[:, 4:5])
        place = place + np.clip(fit[:, :4] / contrast, -0.05, 0.05)
        place[:, ::2] = np.clip(place[:, ::2], 1 - MOST_SCALE, 1 + MOST_SCALE)
        place[:, 1::2] = np.clip(place[:, 1::2], -MOST_SHIFT, MOST_SHIFT)
    return best


def axis_weights(place: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (N, S, S) that move one axis by scale and shift (N, 2), and what lies inside (N, S).

    Source: cubic convolution, Keys 1981, with a = -1/2.
    """
    at = place[:, :1] * grid + place[:, 1:]
    inside = np.abs(at) <= 1 + 1e-6
    pixel = (np.clip(at, -1, 1) + 1) * ((len(grid) - 1) / 2)
    far = np.abs(pixel[:, :, None] - np.arange(len(grid), dtype=np.float32))
    near = (1.5 * far - 2.5) * far * far + 1
    outer = ((-0.5 * far + 2.5) * far - 4) * far + 2
    weights = np.where(far < 1, near, np.where(far < 2, outer, 0))
    return weights / weights.sum(-1, keepdims=True), inside


def _edge_correlation(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Correlation (N,) of two gradient fields where `inside` (N, S, S) is 1."""
    mask = inside[:, 1:, 1:] * inside[:, :-1, 1:] * inside[:, 1:, :-1]
    (ax, ay), (bx, by) = _edges(first), _edges(second)
    common = ((ax * bx + ay * by) * mask).sum((1, 2))
    power = ((ax * ax + ay * ay) * mask).sum((1, 2)) * ((bx * bx + by * by) * mask).sum((1, 2))
    return common / np.sqrt(np.maximum(power, _PLAIN))


def _moved_by_one(image: np.ndarray) -> np.ndarray:
    """Correlation (N,) of an image's gradient field with itself one pixel further; plain: 1."""
    across, down = _edges(image)
    found = []
    for axis in (1, 2):
        size = image.shape[axis] - 2
        start, end = (np.take(across, range(k, k + size), axis) for k in (0, 1))
        start_y, end_y = (np.take(down, range(k, k + size), axis) for k in (0, 1))
        power = (start**2 + start_y**2).sum((1, 2)) * (end**2 + end_y**2).sum((1, 2))
        common = (start * end + start_y * end_y).sum((1, 2))
        found.append(np.where(power > _PLAIN, common / np.sqrt(np.maximum(power, _PLAIN)), 1))
    return (found[0] + found[1]) / 2


def _edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences across and down, (N, S - 1, S - 1) each."""
    corner = image[:, 1:, 1:]
    return corner - image[:, 1:, :-1], corner - image[:, :-1, 1:]
