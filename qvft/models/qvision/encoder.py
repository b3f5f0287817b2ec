"""QVision's vision encoder: CLIP, SigLIP or DINOv2, and a linear projection.

Shape letters: I images, P patches, D the Q-Former's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoModel

from qvft.models.qvision.configuration import QVisionConfig


class QVisionEncoder(nn.Module):
    """The vision tower and a linear projection to the Q-Former's width."""

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__()
        self.tokens_before_patches = config.tokens_before_patches
        self.tower = AutoModel.from_config(config.vision_config)
        self.projection = nn.Linear(config.tower_config.hidden_size, config.qformer_hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Patch features (I, P, D) of normalised images (I, 3, height, width), no class token.

        The tower runs without autograd if all of its weights are frozen.
        """
        tower = getattr(self.tower, "vision_model", self.tower)
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            features = tower(pixel_values=pixel_values.to(self.tower.dtype)).last_hidden_state
        patches = features[:, self.tokens_before_patches :]
        return self.projection(patches.to(self.projection.weight.dtype))
