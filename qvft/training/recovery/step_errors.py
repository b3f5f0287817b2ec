"""Error messages of failed training steps; they name sample ids only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from qvft.errors import MemoryRanOutError, NonFiniteLossError

_NAMED = 8
"""Maximum number of samples that a message names; metrics.jsonl has them all."""


def some_of(samples: Sequence[str]) -> str:
    """The first samples, and how many more there are."""
    further = len(samples) - _NAMED
    return ", ".join(samples[:_NAMED]) + (f" and {further} more" if further > 0 else "")


def non_finite_loss(
    loss: float, norm: float, *, step: int, found: Sequence[tuple[str, list[str]]]
) -> NonFiniteLossError:
    """Error for a step whose loss or gradient is NaN or infinite.

    Args:
        norm: gradient norm.
        found: non-finite values with their samples, first one first.
    """
    what = f"the norm of the gradient is {norm}" if isfinite(loss) else f"the loss is {loss}"
    if not found:
        return NonFiniteLossError(
            f"{what} at step {step}, but a second pass over its samples is finite: dropout, or "
            "sums in another order, brought it about; no weight has moved by it, and checkpoints "
            "written before stay"
        )
    first, samples = found[0]
    return NonFiniteLossError(
        f"{what} at step {step}; samples: {some_of(samples)}; first in {first}; no weight has "
        "moved by it, and checkpoints written before stay; look at these samples, or train with a "
        "lower train.learning_rate, more train.warmup_steps or "
        "train.mixed_precision=no"
    )


def settings_of(sizes: Mapping[str, int]) -> str:
    """Keys of `train` as overrides, e.g. `train.gradient_accumulation_steps=2`."""
    return " ".join(f"train.{key}={value}" for key, value in sizes.items())


def cannot_halve(
    reason: str, *, step: int, rows: int, instead: Mapping[str, int]
) -> MemoryRanOutError:
    """Error for a batch that does not fit into memory and cannot be halved.

    Args:
        rows: rows of the batch's largest part.
        instead: keys of `train` that would halve the batch size.
    """
    start = f"memory ran out at step {step} with {rows} texts at once"
    if rows < 2:
        return MemoryRanOutError(
            f"{start}; train.gradient_checkpointing=true, model.quantization.load_in_4bit=true or "
            "a lower data.max_text_tokens need less"
        )
    return MemoryRanOutError(
        f"{start}, and they cannot be halved on the way: {reason}; set "
        f"{settings_of(instead)}, or train.gradient_checkpointing=true"
    )
