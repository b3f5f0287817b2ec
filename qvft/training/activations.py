"""What a step keeps for its backward pass, under bfloat16 autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from qvft.adapters.lora import inputs_uncast


@contextlib.contextmanager
def lean_activations(model: nn.Module, *, active: bool) -> Iterator[None]:
    """Context of training under bfloat16 autocast in which nothing is kept in float32 needlessly.

    Trained weights stay float32; so does what they accumulate. Two things change: LoRA layers leave
    the type of their input alone (`adapters.lora.inputs_uncast`), and frozen norms that are
    bfloat16 themselves compute as such. Autocast on a GPU makes input and output of a norm float32
    and keeps both, and every linear layer behind it makes the output bfloat16 again. A norm's
    kernel computes mean and variance in float32 in any case.

    The context must span forward and backward: checkpointing runs blocks again in between.

    Args:
        model: the objective or the model itself.
        active: whether autocast is on; without, LoRA layers need their input cast.
    """
    if not active:
        yield
        return
    norms = [module for module in model.modules() if _is_frozen_in_bfloat16(module)]
    with inputs_uncast(model):
        for norm in norms:
            norm.__class__ = NormInOwnType
        try:
            yield
        finally:
            for norm in norms:
                norm.__class__ = nn.LayerNorm


class NormInOwnType(nn.LayerNorm):
    """A norm that is left out of autocast where its input has the type of its weights.

    A class rather than a wrapped `forward` for each norm, so that compiled blocks share their code.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.LayerNorm`."""
        if x.dtype != self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


def _is_frozen_in_bfloat16(module: nn.Module) -> bool:
    if type(module) is not nn.LayerNorm or module.weight is None:
        return False
    return module.weight.dtype == torch.bfloat16 and not module.weight.requires_grad
