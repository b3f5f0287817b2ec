"""Recovery state that a resumed run restores."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class RecoveryState(TrainerCallback, ExportableState):
    """Losses of the last steps and the number of batch halvings; saved with every checkpoint.

    Attributes:
        losses: losses of the last steps, latest last, nats per item.
        halvings: 1: every batch is split into two parts, 2: into four.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.halvings = 0

    def state(self) -> dict[str, Any]:
        """State for transformers' `ExportableState`."""
        attributes = {"losses": list(self.losses), "halvings": self.halvings}
        return {"args": {}, "attributes": attributes}

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Adds an entry to the Trainer state of a checkpoint written without it."""
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def remember(self, loss: float, *, window: int) -> None:
        """Adds the loss of a step; keeps the last `window`."""
        self.losses = [*self.losses, loss][-window:]
