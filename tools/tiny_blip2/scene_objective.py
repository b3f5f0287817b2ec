"""The objective of a phase that teaches the ViT by supervised heads on drawn scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row
from tools.tiny_blip2.drawn import sample_scene, targets
from tools.tiny_blip2.scene_heads import SceneHeads


class SceneObjective(nn.Module):
    """Supervised heads on the model's ViT; the model stays, the heads are thrown away.

    Args:
        model: a BLIP-2 model whose ViT is trained.
    """

    accepts_loss_kwargs = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.heads = SceneHeads(
            model.get_submodule("vision_model"), model.config.vision_config.hidden_size
        )

    def forward(self, *, pixel_values: Tensor, **places: Tensor) -> dict[str, Tensor]:
        """As `LanguageModelling.forward`; an image counts as one item.

        Returns:
            `loss_sum` (), `count` (), `row_loss` (B,) the batch's mean, `exact` (B,) bool: the
            name of everything in the image is right.
        """
        outputs = self.heads(pixel_values=pixel_values, **places)
        batch = len(pixel_values)
        names = outputs["name"].argmax(dim=-1)
        counted = places["name"] >= 0
        exact = ((names == places["name"]) | ~counted).all(dim=1)
        return {
            "loss_sum": outputs["loss"] * batch,
            "count": torch.tensor(batch, device=pixel_values.device),
            "row_loss": outputs["loss"].detach().expand(batch),
            "row_count": torch.ones(batch, device=pixel_values.device),
            "exact": exact,
        }


class SceneCollator:
    """Builds batches of drawn scenes with what stands at each place.

    Args:
        collator: decodes and normalises the images.

    Returns of a call, a dict of: pixel_values (B, 3, height, width) float32; name, colour, size
    (B, places) long; row_index (B,) long.
    """

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[tuple[int, Row]]) -> dict[str, Any]:
        places = [
            targets(sample_scene(row.sample.meta["seed"], row.sample.meta["index"]))
            for _, row in rows
        ]
        return {
            "pixel_values": self.collator.pixels([row.sample.image for _, row in rows]),
            **{
                key: torch.stack([torch.as_tensor(place[key]).long() for place in places])
                for key in places[0]
            },
            "row_index": torch.tensor([index for index, _ in rows]),
        }
