"""Loss spike detection by running medians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_SIGMA = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations: 1 / the normal
quantile of 0.75. Source: Rousseeuw and Croux (1993), Alternatives to the Median Absolute Deviation,
section 1.
"""


@dataclass(frozen=True)
class SpikeRule:
    """A step's loss is a spike if it exceeds both `factor` times the median of the preceding steps
    and that median plus `deviations` standard deviations, estimated from the median absolute
    deviation.

    The preceding steps are the last `window`, including spikes: up to half of them hardly move a
    median, and a permanently higher loss eventually stops counting as a spike.
    """

    policy: str
    window: int
    deviations: float
    factor: float

    def limit(self, losses: Sequence[float]) -> float | None:
        """Loss above which the next step is a spike; None if too few preceding losses are known."""
        if self.policy == "off" or 2 * len(losses) < self.window:
            return None
        middle = median(losses)
        spread = median(abs(loss - middle) for loss in losses)
        return max(middle + self.deviations * _SIGMA * spread, self.factor * middle)
