"""Scales grey values of any type to 8 bits between two ends."""

from __future__ import annotations

import numpy as np


def grey_levels(
    levels: np.ndarray, low: float, high: float, *, inverted: bool, hidden: int | None
) -> np.ndarray:
    """Values scaled from `low`..`high` to 8 bits; pixels with the value `hidden` are white."""
    scaled = np.clip(levels, low, high, dtype=np.float64)
    scaled -= low
    scaled /= max(high - low, np.finfo(np.float64).tiny)
    if inverted:
        scaled = 1.0 - scaled
    grey: np.ndarray = np.rint(np.nan_to_num(scaled) * 255).astype(np.uint8)
    if hidden is not None:
        grey[levels == hidden] = 255
    return grey
