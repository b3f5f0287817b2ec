"""Base classes of objectives with several weighted losses, each with a count of its own items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from qvft.training.objectives.language import Objective

LANGUAGE = "lm"
"""Name of the language loss, whose items the Trainer counts: the supervised tokens."""


class WeightedObjective(Objective):
    """Objective whose forward returns, in training mode, `losses`: a `LossSum` by name, and perhaps
    `metrics`: a `LossSum` by name, of which the mean over its items is logged.

    Attributes:
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


class WithoutDropout(WeightedObjective):
    """Objective that computes the same in training and in evaluation mode."""

    def train(self, mode: bool = True) -> WithoutDropout:
        """Sets training mode of the objective, and of blocks that recompute their activations,
        which they do in that mode alone; everything else stays in evaluation mode.
        """
        super().train(mode)
        for module in self.model.modules():
            recomputes = isinstance(module, GradientCheckpointingLayer)
            if not (recomputes and module.gradient_checkpointing):
                module.training = False
        return self
