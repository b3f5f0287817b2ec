"""Unloads a frozen ViT from memory; keeps its parameter names and counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qvft.errors import ModelError


def unload_vision(model: nn.Module) -> int:
    """Unloads the weights of a model's ViT, in place; returns the freed bytes.

    Each parameter keeps its name, shape, dtype and device, but all its values share one zero in
    memory, so that counting, freezing and saving still work. The ViT cannot run any more.
    """
    vision = model.get_submodule("vision_model")
    freed = 0
    for parameter in vision.parameters():
        assert not parameter.requires_grad, "a trained ViT is needed"
        freed += parameter.numel() * parameter.itemsize
        zero = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
        parameter.data = zero.expand(parameter.shape)
    vision.forward = _refuse
    return freed


def _refuse(*_: Any, **__: Any) -> Any:
    raise ModelError(
        "the ViT has been unloaded, since the features of all images are cached",
        do="set data.features=off",
    )
