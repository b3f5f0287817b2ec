"""What objectives around a whole model have in common."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel


class Objective(nn.Module):
    """A module whose `forward` is a step, so that DDP sees a single one.

    Args:
        model: of any family, with or without LoRA layers in it.
    """

    accepts_loss_kwargs = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._leave_frozen_vision()

    def train(self, mode: bool = True) -> Objective:
        """Training mode, except for parts that are frozen: they stay as evaluation finds them."""
        super().train(mode)
        for name in ("vision_model", "qformer"):
            part = self.model.get_submodule(name)
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def _leave_frozen_vision(self) -> None:
        """Tells DDP not to broadcast a frozen ViT: every process has read it, or has let it go."""
        vision = self.model.get_submodule("vision_model")
        if not any(parameter.requires_grad for parameter in vision.parameters()):
            kept = {id(tensor) for tensor in (*vision.parameters(), *vision.buffers())}
            named = (*self.named_parameters(), *self.named_buffers())
            names = [name for name, tensor in named if id(tensor) in kept]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)
