"""Base class of training objectives."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel


class Objective(nn.Module):
    """Wraps the whole model in one module whose `forward` computes the losses, for DDP.

    Args:
        model: model of any family, with or without LoRA layers.
    """

    accepts_loss_kwargs = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._leave_frozen_vision()

    def train(self, mode: bool = True) -> Objective:
        """Sets training mode, except for frozen parts, which stay in evaluation mode."""
        super().train(mode)
        for name in ("vision_model", "qformer"):
            part = self.model.get_submodule(name)
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def _leave_frozen_vision(self) -> None:
        """Excludes a frozen ViT from DDP's broadcast: every process has loaded or unloaded it."""
        vision = self.model.get_submodule("vision_model")
        if not any(parameter.requires_grad for parameter in vision.parameters()):
            kept = {id(tensor) for tensor in (*vision.parameters(), *vision.buffers())}
            named = (*self.named_parameters(), *self.named_buffers())
            names = [name for name, tensor in named if id(tensor) in kept]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)
