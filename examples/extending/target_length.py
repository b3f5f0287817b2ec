"""A training objective with weights of its own: the length of a target from the query tokens.

Shape letters: I images, B rows, L row length, Q query tokens, D Q-Former width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from qvft.data.collate import IGNORED
from qvft.training.objectives.alignment_losses import LossSum
from qvft.training.objectives.custom import CustomLoss, Objective


class TargetLength(CustomLoss):
    """Predicts how many tokens each row's target has, from the mean query output of its image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)

    def forward(
        self, model: Any, batch: Mapping[str, Tensor], *, features: Tensor, states: Tensor
    ) -> LossSum:
        """Summed over the rows with a target; `states` is (I, Q, D)."""
        tokens = (batch["labels"] != IGNORED).sum(dim=1)
        found = self.head(states.mean(dim=1).float())[batch["image_index"], 0]
        losses = smooth_l1_loss(found, torch.log1p(tokens.float()), reduction="none")
        counted = tokens > 0
        return LossSum((losses * counted).sum(), counted.sum())


def build(model: Any) -> TargetLength:
    """The loss for a model."""
    return TargetLength(model.config.qformer_config.hidden_size)


OBJECTIVE = Objective("target_length", build)
