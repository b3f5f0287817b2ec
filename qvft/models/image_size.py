"""Interpolates a ViT's position embeddings to another image size, once, when a model is loaded.

Shape letters: P patches, W ViT width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from qvft.errors import ModelError

POSITIONS = "vision_model.embeddings.position_embedding"
"""The position embeddings (1, 1 + P, W) of BLIP-2 and question-aware models, class token first."""
RESIZABLE = ("blip-2", "instructblip")
"""Values of `model_type` whose ViT has them."""


def config_with_image_size(config: PretrainedConfig, size: int) -> PretrainedConfig:
    """A copy of a model's configuration for images of `size` x `size` pixels.

    Raises:
        ModelError: the size is no multiple of the ViT's patch size, or it is another architecture.
    """
    if config.model_type not in RESIZABLE:
        raise ModelError(
            f"{size}",
            where="model.image_size",
            expected=f"null: model.id is of type {config.model_type}, and only the ViTs of "
            f"{' and '.join(RESIZABLE)} can be resized",
        )
    patch = config.vision_config.patch_size
    if size < patch or size % patch:
        below = max(patch, size - size % patch)
        raise ModelError(
            f"{size} pixels",
            where="model.image_size",
            expected=f"a multiple of {patch}, the ViT's patch size",
            do=f"set {below} or {below + patch}, for example",
        )
    config = copy.deepcopy(config)
    config.vision_config.image_size = size
    return config


def interpolated(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + side * side, W) from (1, 1 + P, W), P a square number.

    Bicubic in float32, as the model does per call with `interpolate_pos_encoding=True`; the result
    has the dtype and device of `positions`.

    Source: `Blip2VisionEmbeddings.interpolate_pos_encoding` in transformers.
    """
    stored_side = round((positions.shape[1] - 1) ** 0.5)
    if stored_side == side:
        return positions
    width = positions.shape[-1]
    grid = positions[:, 1:].float().reshape(1, stored_side, stored_side, width).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).reshape(1, side * side, width)
    return torch.cat([positions[:, :1], patches.to(positions.dtype)], dim=1)


def resize_positions(model: PreTrainedModel, size: int) -> None:
    """Changes a loaded BLIP-2 or question-aware model, in place, to images of `size` pixels a side.

    Dtype, device and `requires_grad` stay; the configuration is updated.

    Raises:
        ModelError: as `config_with_image_size`.
    """
    vision = config_with_image_size(model.config, size).vision_config
    embeddings: Any = model.get_submodule(POSITIONS.rpartition(".")[0])
    stored = embeddings.position_embedding
    resized = interpolated(stored.detach(), size // vision.patch_size)
    embeddings.position_embedding = nn.Parameter(resized, requires_grad=stored.requires_grad)
    embeddings.image_size = size
    embeddings.num_positions = resized.shape[1]
    embeddings.num_patches = resized.shape[1] - 1
    tower: Any = model.get_submodule("vision_model")
    for config in (model.config.vision_config, tower.config):
        config.image_size = size


def processor_with_image_size(processor: Any, size: int) -> Any:
    """A copy of a processor whose images have `size` x `size` pixels."""
    processor = copy.deepcopy(processor)
    images = processor.image_processor
    square = {"height": size, "width": size}
    crop = getattr(images, "crop_size", None)
    shorter = getattr(images.size, "shortest_edge", None)
    if shorter is not None and crop is not None:
        # As much of the image stays in the crop as before.
        images.size = type(images.size)(shortest_edge=round(shorter * size / crop["height"]))
    else:
        images.size = type(images.size)(**square)
    if crop is not None:
        images.crop_size = type(crop)(**square)
    return processor


@dataclass(frozen=True)
class ResizedWeights(Mapping[str, Tensor]):
    """Weights of a checkpoint, read one by one, with position embeddings of another image size.

    Attributes:
        weights: the checkpoint's, by the model's keys.
        side: patches per side.
    """

    weights: Mapping[str, Tensor]
    side: int

    def __getitem__(self, key: str) -> Tensor:
        tensor = self.weights[key]
        return interpolated(tensor, self.side) if key == POSITIONS else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)
