"""What a phase has learnt about its steps and a resumed run has to know."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class RecoveryState(TrainerCallback, ExportableState):
    """Losses of the last steps and how often batches are halved; saved with every checkpoint.

    Attributes:
        losses: of the last steps, the latest last, nats an item.
        halvings: 1: every batch is taken in two parts, 2: in four.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.halvings = 0

    def state(self) -> dict[str, Any]:
        """As `ExportableState` wants it."""
        attributes = {"losses": list(self.losses), "halvings": self.halvings}
        return {"args": {}, "attributes": attributes}

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Makes room for it in the state of a checkpoint that was written without it."""
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def remember(self, loss: float, *, window: int) -> None:
        """Notes the loss of a step; keeps those of the last `window`."""
        self.losses = [*self.losses, loss][-window:]
