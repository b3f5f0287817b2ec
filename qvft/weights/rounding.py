"""Rounds float32 weights to the output dtype."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_DROPPED_BITS = 16


def round_weight(exact: Tensor, dtype: torch.dtype, *, key: str) -> Tensor:
    """Rounds a float32 weight to `dtype`; to bfloat16 stochastically.

    Base weights are bfloat16 numbers, and the update of a short training is often less than half a
    unit in the last place. Rounding to nearest would then undo it for all weights, and the merged
    model would be the base. With stochastic rounding errors are of the same size, but independent
    with zero mean, so the update survives in sums. Exactly representable weights do not change.

    Args:
        exact: any shape.
        key: the weight's name, which seeds the rounding, so that it is reproducible.

    Source: Gupta et al., Deep Learning with Limited Numerical Precision, ICML 2015, section 3.
    """
    if dtype != torch.bfloat16:
        return exact.to(dtype)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    chance = torch.Generator().manual_seed(seed)
    bits = exact.detach().cpu().float().contiguous().view(torch.int32)
    drawn = torch.randint(0, 1 << _DROPPED_BITS, bits.shape, generator=chance, dtype=torch.int32)
    kept = (bits + drawn) & ~((1 << _DROPPED_BITS) - 1)
    return kept.view(torch.float32).to(torch.bfloat16).to(exact.device)
