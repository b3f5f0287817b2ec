"""Interpolates a ViT's position embeddings to another image size, once, when a model is loaded.

Shape letters: P patches, W ViT width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from qvft.errors import ModelError

POSITIONS = "vision_model.embeddings.position_embedding"
"""The position embeddings (1, 1 + P, W) of BLIP-2 and question-aware models, class token first."""
RESIZABLE = ("blip-2", "instructblip", "qvision")
"""Values of `model_type` whose ViT can be resized."""


@dataclass(frozen=True)
class Positions:
    """Position embeddings of a model's ViT: (1, F + P, W), or (F + P, W) in an `nn.Embedding`.

    Attributes:
        key: name of the parameter.
        first: F, positions before those of the patches: 1 for the class token, 0 in SigLIP.
        antialias: whether the ViT's own interpolation has it.
    """

    key: str
    first: int = 1
    antialias: bool = False


def positions_of(config: Any) -> Positions:
    """The position embeddings of a model with this configuration, one of `RESIZABLE`."""
    if config.model_type != "qvision":
        return Positions(POSITIONS)
    tower = config.tower_config
    part = "vision_model.tower.embeddings"
    if tower is not config.vision_config:
        part = "vision_model.tower.vision_model.embeddings"
    if tower.model_type.startswith("dinov2"):
        registers = tower.model_type == "dinov2_with_registers"
        return Positions(f"{part}.position_embeddings", antialias=registers)
    first = 0 if tower.model_type.startswith("siglip") else 1
    return Positions(f"{part}.position_embedding.weight", first=first)


def vision_of(config: Any) -> Any:
    """The configuration of a model's ViT alone, without the text tower of a whole CLIP."""
    return getattr(config, "tower_config", config.vision_config)


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
    patch = vision_of(config).patch_size
    if size < patch or size % patch:
        below = max(patch, size - size % patch)
        raise ModelError(
            f"{size} pixels",
            where="model.image_size",
            expected=f"a multiple of {patch}, the ViT's patch size",
            do=f"set {below} or {below + patch}, for example",
        )
    config = copy.deepcopy(config)
    vision_of(config).image_size = size
    return config


def interpolated_as(positions: Tensor, config: Any) -> Tensor:
    """The position embeddings of a checkpoint for the image size of a configuration."""
    vision, found = vision_of(config), positions_of(config)
    side = vision.image_size // vision.patch_size
    return interpolated(positions, side, first=found.first, antialias=found.antialias)


def interpolated(
    positions: Tensor, side: int, *, first: int = 1, antialias: bool = False
) -> Tensor:
    """Position embeddings (1, F + side * side, W) from (1, F + P, W), P a square number; those of
    an `nn.Embedding` without the first axis.

    Bicubic in float32, as the model does per call with `interpolate_pos_encoding=True`; the result
    has the dtype and device of `positions`.

    Args:
        antialias: as in `Dinov2WithRegistersEmbeddings`, alone.

    Source: `interpolate_pos_encoding` of `Blip2VisionEmbeddings`, `CLIPVisionEmbeddings`,
    `SiglipVisionEmbeddings` and `Dinov2Embeddings` in transformers.
    """
    if positions.dim() == 2:
        return interpolated(positions[None], side, first=first, antialias=antialias)[0]
    stored_side = round((positions.shape[1] - first) ** 0.5)
    if stored_side == side:
        return positions
    width = positions.shape[-1]
    grid = positions[:, first:].float().reshape(1, stored_side, stored_side, width)
    grid = nn.functional.interpolate(
        grid.permute(0, 3, 1, 2),
        size=(side, side),
        mode="bicubic",
        align_corners=False,
        antialias=antialias,
    )
    patches = grid.permute(0, 2, 3, 1).reshape(1, side * side, width)
    return torch.cat([positions[:, :first], patches.to(positions.dtype)], dim=1)


def resize_positions(model: PreTrainedModel, size: int) -> None:
    """Changes a loaded model, in place, to images of `size` pixels a side.

    Dtype, device and `requires_grad` stay; the configuration is updated.
    """
    resized_config = config_with_image_size(model.config, size)
    key = positions_of(model.config).key
    stored = model.get_parameter(key)
    resized = interpolated_as(stored.detach(), resized_config)
    owner, _, name = key.rpartition(".")
    holder: Any = model.get_submodule(owner)
    setattr(holder, name, nn.Parameter(resized, requires_grad=stored.requires_grad))
    embeddings = holder
    if isinstance(holder, nn.Embedding):
        holder.num_embeddings = len(resized)
        embeddings = model.get_submodule(owner.rpartition(".")[0])
        embeddings.position_ids = torch.arange(len(resized), device=resized.device)[None]
    count = resized.shape[-2]
    patches = count - positions_of(model.config).first
    if hasattr(embeddings, "num_positions"):
        embeddings.image_size, embeddings.num_positions = size, count
        embeddings.num_patches = patches
    else:  # DINOv2
        embeddings.patch_embeddings.image_size = (size, size)
        embeddings.patch_embeddings.num_patches = patches
    tower: Any = model.get_submodule("vision_model")
    tower = getattr(tower, "tower", tower)
    tower_config = getattr(tower.config, "vision_config", tower.config)
    for config in (vision_of(model.config), tower_config, embeddings.config):
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
