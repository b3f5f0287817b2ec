"""When the loss of a step counts as a spike, by medians: a spike does not move what it is held
against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_SIGMA = 1.4826
"""The standard deviation of normal noise in median absolute deviations: 1 / the normal quantile of
0.75. Source: Rousseeuw and Croux (1993), Alternatives to the Median Absolute Deviation, section 1.
"""


@dataclass(frozen=True)
class SpikeRule:
    """A step's loss is a spike if it lies above both `factor` times the median of the steps before
    it and `deviations` standard deviations, estimated from their median absolute deviation, above
    that median.

    The steps before it are the last `window`, those that were spikes among them: up to half of them
    leave a median where it is, and a loss that has risen for good ends being one.

    Attributes:
        policy: `off`, `skip` or `stop`.
        window: steps looked back on; half of them must be known.
        deviations, factor: see above.
    """

    policy: str
    window: int
    deviations: float
    factor: float

    def limit(self, losses: Sequence[float]) -> float | None:
        """The loss above which the next step is a spike; None while too few are known.

        Args:
            losses: of the steps before it, nats an item.
        """
        if self.policy == "off" or 2 * len(losses) < self.window:
            return None
        middle = median(losses)
        spread = median(abs(loss - middle) for loss in losses)
        return max(middle + self.deviations * _SIGMA * spread, self.factor * middle)
