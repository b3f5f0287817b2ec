"""Operations of a trained ViT, against torch's own count."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from qvft.training.memory_estimate import vision_flops
from tools.tiny_blip2.geometry import init_tiny


def test_operations_per_image_are_those_that_torch_counts() -> None:
    model = init_tiny(0)
    vision, size = model.vision_model, model.config.vision_config.image_size
    # As in training, where gradients reach the first block's input through the positions.
    with FlopCounterMode(display=False) as counter:
        vision(pixel_values=torch.rand(1, 3, size, size)).last_hidden_state.sum().backward()
    operations = counter.get_flop_counts()["Global"]
    scores = sum(count for name, count in operations.items() if "attention" in str(name))
    # Biases, norms and positions count as weights here, but are no products: 2 % of a small model.
    assert abs(vision_flops(model) / (counter.get_total_flops() - scores) - 1) < 0.05
