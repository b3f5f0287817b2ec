"""Base class of objectives with several weighted losses, each with a count of items of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from qvft.training.objectives.language import Objective

LANGUAGE = "lm"
"""Name of the language loss, whose items the Trainer counts: the supervised tokens."""


class WeightedObjective(Objective):
    """Objective whose forward returns, in training mode, `losses`: a `LossSum` by name, and perhaps
    `metrics`: a `LossSum` by name, of which the mean over its items is logged.

    Attributes:
        weights: weight of each loss by name.
        adds_over_rows: whether a batch's loss sums are the sums of its parts.
    """

    weights: Mapping[str, float]

    @property
    def adds_over_rows(self) -> bool:
        return True

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, int]:
        """Items per loss, but the language loss, in these batches of this process."""
        raise NotImplementedError

    def trained_heads(self) -> list[nn.Module]:
        """Trained modules outside the model."""
        return []
