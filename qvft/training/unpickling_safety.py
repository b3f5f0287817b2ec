"""Checks the pickle files of a checkpoint before the Trainer calls `torch.load`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.trainer_pt_utils import safe_globals

from qvft.errors import CheckpointError
from qvft.recipe.refused_settings import first_line

_PATTERNS = ("optimizer*.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")


def require_plain_states(checkpoint: Path) -> None:
    """Checks that optimizer, scheduler, scaler and random states hold only tensors and numbers.

    The Trainer also reads them with `weights_only`, so none of them runs code, but its error for a
    damaged file names no file. Tensors are memory-mapped here, not read. `training_args.bin`, a
    pickle that the Trainer writes too, is never read.

    Raises:
        CheckpointError: one is damaged, or holds another object.
    """
    files = sorted(path for pattern in _PATTERNS for path in checkpoint.glob(pattern))
    for path in files:
        try:
            with safe_globals():
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # damaged pickles raise nearly anything
            raise CheckpointError(
                f"cannot be read safely: {first_line(error)[:160]}",
                where=str(path),
                expected="tensors and numbers, as the trainer saves them",
                do=f"remove {checkpoint} to resume from the checkpoint before it",
            ) from error
