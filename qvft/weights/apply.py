"""Carrying a plan out on a model in memory."""

from __future__ import annotations

import torch
from torch import nn

from qvft.weights.plan import MergePlan


@torch.no_grad()
def apply_plan(model: nn.Module, plan: MergePlan) -> None:
    """Turns the base that `plan` was made for into the merged model, in place.

    One weight at a time, so that memory holds one model and one float32 weight. Tied weights stay
    one tensor.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for key, action in plan.actions.items():
        if action != "tied":
            tensors[key].data = plan.value(key, tensors[key].data)
