"""How far rounding alone may move the logits of a merged model.

The reference adds LoRA to every product, x W + s (x A) B; the merged model has one weight, rounded
to the type it is written in. Nothing else may differ, and this much does:

1. Each rounded weight is off by a relative error whose root mean square is 0.42 u, u being the
   type's unit roundoff (2^-24 float32, 2^-11 float16, 2^-8 bfloat16) and 0.42 what a significand
   spread evenly on the logarithmic scale gives. Errors of the weights are independent, so a
   product over many of them is off by that share of itself too, whatever its length.
2. The model adds in another order, in the type it computes in (unit roundoff v): a product of
   length n is off by at most about sqrt(n) times float32's roundoff (products are summed in
   float32), and by v when it is stored.
   Source: Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci.
   Comput. 41(5), 2019, theorem 2.4.
3. Every layer's error is independent of the others', is relative to its own output and reaches the
   logits no larger than the layer's own share, as residual streams and layer norms have it: K
   matrices give sqrt(K) times the error of one. Shares are at most the whole, which is what makes
   this an upper estimate; it grows too large rather than too small with depth.

The result is the root mean square error of one logit as a share of the logits' spread (their
standard deviation over the vocabulary). Among ten million normal errors the largest is 5.4 times
that; `SIGMAS` = 6 is passed by one in five hundred million.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

SIGMAS = 6.0
_RMS_OF_ROUNDING = math.sqrt((1 - 0.25) / (2 * math.log(2)) / 3)
_FLOAT32_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Tolerance:
    """How far logits may move: the root mean square over all of them, and any single one."""

    rms: float
    largest: float


def logit_tolerance(
    *,
    spread: float,
    rounded_matrices: int,
    matrices: int,
    longest_product: int,
    written: torch.dtype,
    computed: torch.dtype,
) -> Tolerance:
    """The tolerance that the module's docstring derives.

    Args:
        spread: standard deviation of the reference's logits over the vocabulary.
        rounded_matrices: how many were rounded when the checkpoint was written.
        matrices: how many the model has.
        longest_product: the widest input of a matrix.
        written: type of the written weights. computed: type both models compute in.
    """
    merging = math.sqrt(rounded_matrices) * _RMS_OF_ROUNDING * unit_roundoff(written)
    one_product = unit_roundoff(computed) + math.sqrt(longest_product) * _FLOAT32_ROUNDOFF
    share = merging + math.sqrt(matrices) * one_product
    return Tolerance(rms=share * spread, largest=SIGMAS * share * spread)


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of rounding to `dtype`: half the distance from 1 to the next."""
    return torch.finfo(dtype).eps / 2
