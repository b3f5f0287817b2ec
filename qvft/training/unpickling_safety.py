"""The files of a checkpoint that `torch.load` reads, looked at before the Trainer reads them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.trainer_pt_utils import safe_globals

from qvft.errors import CheckpointError

_PATTERNS = ("optimizer*.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth")


def require_plain_states(checkpoint: Path) -> None:
    """Checks that optimizer, schedule, scaler and random states hold tensors and numbers alone.

    The Trainer reads them with `weights_only` too, so that none of them runs code; what it says of
    a damaged one names no file. Tensors are mapped here, not read. `training_args.bin`, a pickle
    that the Trainer leaves beside them, is never read.

    Raises:
        CheckpointError: one is damaged, or holds an object that only a pickle with code makes.
    """
    files = sorted(path for pattern in _PATTERNS for path in checkpoint.glob(pattern))
    for path in files:
        try:
            with safe_globals():
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # damaged pickles raise nearly anything
            raise CheckpointError(
                f"cannot be read safely: {str(error).strip().splitlines()[0][:160]}"
                if str(error).strip()
                else f"cannot be read safely ({type(error).__name__})",
                where=str(path),
                expected="tensors and numbers, as the trainer saves them",
                do=f"remove {checkpoint} to go on from the checkpoint before it",
            ) from error
