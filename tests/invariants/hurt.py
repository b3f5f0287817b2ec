"""Trains with something wrong in the second process: `hurt.py nan|memory|spike RECIPE ...`."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from qvft.train import main
from qvft.training.trainer import QFormerTrainer

STEP = 7
compute = QFormerTrainer.compute_loss


def hurt(self: QFormerTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """The loss, except in the seventh step of the second process."""
    wrong = os.environ["RANK"] == "1" and self.state.global_step == STEP - 1
    if wrong and sys.argv[1] == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    found = compute(self, model, inputs, *args, **kwargs)
    if not wrong:
        return found
    factor = {"nan": float("nan"), "spike": 40.0}[sys.argv[1]]
    if isinstance(found, tuple):
        return factor * found[0], found[1]
    return factor * found


QFormerTrainer.compute_loss = hurt
sys.exit(main(sys.argv[2:]))
