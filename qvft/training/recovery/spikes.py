"""Loss spike detection by running medians."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from qvft.recipe.train import Spike

_SIGMA = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations: 1 / the normal
quantile of 0.75. Source: Rousseeuw and Croux (1993), Alternatives to the Median Absolute Deviation,
section 1.
"""


def spike_limit(rule: Spike, losses: Sequence[float]) -> float | None:
    """Loss above which the next step is a spike; None if too few preceding losses are known.

    A spike exceeds both `factor` times the median of the preceding steps and that median plus
    `deviations` standard deviations, estimated from the median absolute deviation. The preceding
    steps are the last `window`, including spikes: up to half of them hardly move a median, and a
    permanently higher loss eventually stops counting as a spike.
    """
    if rule.policy == "off" or 2 * len(losses) < rule.window:
        return None
    middle = median(losses)
    spread = median(abs(loss - middle) for loss in losses)
    return max(middle + rule.deviations * _SIGMA * spread, rule.factor * middle)
