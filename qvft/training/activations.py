"""Mixed precision (bfloat16 autocast): which activations are kept for the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from qvft.adapters.lora import inputs_uncast


@contextlib.contextmanager
def lean_activations(model: nn.Module, *, active: bool) -> Iterator[None]:
    """Context manager for training under bfloat16 autocast that keeps no activation in float32
    needlessly.

    Trained weights and their gradients stay float32. Two things change: LoRA layers do not cast
    their input (`adapters.lora.inputs_uncast`), and frozen bfloat16 norms run in bfloat16. Autocast
    on a GPU would cast input and output of a norm to float32 and keep both, and each following
    linear layer would cast back. A norm's kernel computes mean and variance in float32 either way.

    The context must span forward and backward: gradient checkpointing runs blocks again.

    Without autocast (`active` is False) LoRA layers need their input cast, and nothing changes.
    """
    if not active:
        yield
        return
    norms = [
        module
        for module in model.modules()
        if type(module) is nn.LayerNorm
        and module.weight is not None
        and module.weight.dtype == torch.bfloat16
        and not module.weight.requires_grad
    ]
    with inputs_uncast(model):
        for norm in norms:
            norm.__class__ = NormInOwnType
        try:
            yield
        finally:
            for norm in norms:
                norm.__class__ = nn.LayerNorm


class NormInOwnType(nn.LayerNorm):
    """A norm that runs outside autocast if its input has the dtype of its weights.

    A class rather than a wrapped `forward` for each norm, so that compiled blocks share their code.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)
