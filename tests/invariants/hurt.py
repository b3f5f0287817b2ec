"""Trains with something wrong in the second process: `hurt.py KIND ROWS RECIPE ...`.

Kinds: nan, spike, memory (there is some for ROWS rows at once), forward (there is none).
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import torch

from qvft.train import main
from qvft.training.trainer import QFormerTrainer

STEP = 7
compute = QFormerTrainer.compute_loss


def run_out() -> NoReturn:
    """Fails as a GPU does."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def hurt(self: QFormerTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """The loss, except in the seventh step of the second process."""
    wrong = os.environ.get("RANK") == "1" and self.state.global_step == STEP - 1
    if wrong and sys.argv[1] == "forward":
        run_out()
    found = compute(self, model, inputs, *args, **kwargs)
    if not wrong:
        return found
    if sys.argv[1] == "memory":
        if len(inputs["labels"]) > int(sys.argv[2]):
            # Amid the backward pass: adapters have their gradients by then.
            weight = self.model.model.language_projection.weight
            handle = weight.register_hook(lambda _: (handle.remove(), run_out()))
        return found
    factor = {"nan": float("nan"), "spike": 40.0}[sys.argv[1]]
    if isinstance(found, tuple):
        return factor * found[0], found[1]
    return factor * found


QFormerTrainer.compute_loss = hurt
sys.exit(main(sys.argv[3:]))
