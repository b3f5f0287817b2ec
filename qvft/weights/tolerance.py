"""Tolerance of the parity check: how far rounding may move the logits, measured on the model.

The reference computes x W + s (x A) B; the merged model has one weight, rounded to the output
dtype. The only allowed differences:

1. Each rounded weight is off by a relative error of root mean square 0.42 u, where u is the type's
   unit roundoff (2^-24 float32, 2^-11 float16, 2^-8 bfloat16) and 0.42 is what significands spread
   evenly on the logarithmic scale give. bfloat16 is rounded stochastically (`rounding.py`), which
   doubles the variance: 0.59 u.
2. Sums are taken in another order, in the type v the models compute in: a product of n terms is off
   by about sqrt(n) times float32's roundoff (products are summed in float32), and by v's when it is
   stored. Source: Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J.
   Sci. Comput. 41(5), 2019, theorem 2.4. As an error of the weights it has the same effect.

The effect of such errors on the logits depends on the network, so it is measured: the reference
runs once more with random errors of this size added to every weight. The merged model is another
sample of the same errors; `SAFETY` covers the difference between two samples.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

SAFETY = 4.0
"""Allowed multiple of the effect of random errors. Two samples agree within a factor of two: on
small random models the merged model's errors were 0.15 (float32) to 1.05 (bfloat16) times the
control's.
"""

_RMS_OF_ROUNDING = math.sqrt((1 - 0.25) / (2 * math.log(2)) / 3)
_FLOAT32_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Tolerance:
    """Allowed error of logits: root mean square, and maximum."""

    rms: float
    largest: float


@torch.no_grad()
def jitter(
    model: nn.Module, rounded: Collection[str], *, written: torch.dtype, computed: torch.dtype
) -> None:
    """Adds random errors of the size of rounding to every weight but 4-bit ones, in place."""
    generators: dict[torch.device, torch.Generator] = {}
    # These sum over the first dimension.
    transposed = {
        f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, Conv1D)
    }
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        place = parameter.device
        if place not in generators:
            generators[place] = torch.Generator(place).manual_seed(0)
        stored = parameter.T if name in transposed else parameter
        terms = stored.shape[1:].numel()
        share = unit_roundoff(computed) + math.sqrt(terms) * _FLOAT32_ROUNDOFF
        if name.replace(".base_layer.", ".") in rounded:
            # Stochastic rounding has twice the variance of rounding to nearest.
            spread = math.sqrt(2) if written == torch.bfloat16 else 1.0
            share = math.hypot(share, spread * _RMS_OF_ROUNDING * unit_roundoff(written))
        factor = torch.randn(parameter.shape, generator=generators[place], device=place)
        parameter.mul_(factor.mul_(share).add_(1))


def tolerance_of(reference: list[Tensor], control: list[Tensor]) -> Tolerance:
    """Tolerance from the reference's logits and those with random errors."""
    largest, rms = logit_errors(reference, control)
    return Tolerance(rms=SAFETY * rms, largest=SAFETY * largest)


def logit_errors(reference: list[Tensor], candidate: list[Tensor]) -> tuple[float, float]:
    """Maximum and root mean square difference of logits; infinite if one is NaN."""
    largest, squares, count = 0.0, 0.0, 0
    for one, other in zip(reference, candidate, strict=True):
        error = (one - other).abs()
        if not bool(torch.isfinite(error).all()):
            return math.inf, math.inf
        largest = max(largest, float(error.max()))
        squares += float(error.double().square().sum())
        count += error.numel()
    return largest, math.sqrt(squares / count)


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of rounding to `dtype`: half the gap after 1."""
    return torch.finfo(dtype).eps / 2
