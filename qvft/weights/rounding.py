"""Rounds float32 weights to the output dtype."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_DROPPED_BITS = 16


def round_weight(exact: Tensor, dtype: torch.dtype, *, key: str) -> Tensor:
    """A float32 weight in `dtype`; bfloat16 is rounded up or down by chance, in proportion.

    A base's weights lie on bfloat16's grid, and what a short training adds to them is often less
    than half a step of it. Rounding to nearest then takes all of it back, everywhere at once, and
    the merged model is the base again. Rounded stochastically, a weight is off by as much, but
    the errors are independent and zero on average, so that what was learnt survives in the sum.
    Weights that are on the grid stay as they are.

    Args:
        exact: any shape.
        key: the weight's name; seeds the chance, so that the same weights give the same bits.

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
