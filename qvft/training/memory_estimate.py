"""GPU memory estimate of a recipe, by arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from qvft.adapters.freeze import ComponentCount
from qvft.models.image_size import vision_of

# 4 bits and a float32 constant per 64 weights; double quantization removes most of the latter.
NF4_BYTES = 0.5625
# Per patch, block and unit of width of a trained ViT in bfloat16 under autocast: the tensors that
# autograd saves of a block of BLIP-2's ViT-g, counted; with recomputed activations its input alone.
VISION_BYTES, VISION_INPUT_BYTES = 37.5, 4.0
# Per query token, block and unit of width of a Q-Former in bfloat16 under autocast with dropout,
# cross-attention to the patches included: counted for BLIP-2's, 44.4 MB per image.
QFORMER_BYTES = 150.7


class MemoryEstimate(NamedTuple):
    """Bytes on the device: weights, trained states and activations of a step, and the peak."""

    weights: int
    trained_states: int
    activations: int
    total: int


def state_bytes(optimizer: str) -> float:
    """Bytes per trained weight: float32 weight and gradient, and AdamW's two moments, which
    bitsandbytes keeps in 8 bits with a float32 scale per 256 of them.

    Args:
        optimizer: `optim` of TrainingArguments.
    """
    return 8 + 2 * (1 + 4 / 256 if "8bit" in optimizer else 4)


def vision_flops(model: Any) -> int:
    """Floating-point operations of a trained ViT per image, forward and backward, without those of
    its attention scores: each weight multiplies and adds once per patch, and once more for the
    gradient of its input; a trained weight once more for its own.
    """
    vision = model.get_submodule("vision_model")
    config = vision_of(model.config)
    positions = 1 + (config.image_size // config.patch_size) ** 2
    weights = sum(
        weight.numel() * (3 if weight.requires_grad else 2) for weight in vision.parameters()
    )
    return 2 * weights * positions


def estimate_memory(
    counts: Sequence[ComponentCount],
    *,
    frozen_bytes: int,
    quantized: bool,
    embedding_weights: int,
    tokens: int,
    decoder_layers: int,
    decoder_width: int,
    checkpointing: bool,
    layer_bytes: float,
    trained_bytes: float = 16,
    unloads_vision: bool = False,
    qformer_units: int = 0,
    vision_units: int = 0,
    frozen_float32: int = 0,
) -> MemoryEstimate:
    """GPU memory estimate without the allocator's overhead.

    Args:
        frozen_bytes: bytes per frozen weight (2 in bfloat16, 4 in float32).
        quantized: the decoder's frozen weights, except its embeddings, take 4.5 bits each.
        tokens: decoder tokens of a step on one device.
        layer_bytes: bytes of activations per token, decoder layer and unit of width.
        trained_bytes: `state_bytes` of the optimizer.
        unloads_vision: the ViT is in memory only until the features of all images are cached.
        qformer_units: images times query tokens, blocks and width of the Q-Former.
        frozen_float32: frozen weights that another run trained, which stay in float32.
        vision_units: images times patches, layers and width of a trained ViT; 0: it is frozen.
    """
    weights, trained, vision = frozen_float32 * (4 - frozen_bytes), 0, 0
    for row in counts:
        frozen = row.total - row.trainable
        if quantized and row.component == "decoder":
            in_blocks = max(0, frozen - embedding_weights)
            weights += int(in_blocks * NF4_BYTES) + (frozen - in_blocks) * frozen_bytes
        elif unloads_vision and row.component == "vision":
            vision = frozen * frozen_bytes
        else:
            weights += frozen * frozen_bytes
        trained += row.trainable
    per_unit = 2.0 if checkpointing else layer_bytes
    activations = int(tokens * decoder_layers * decoder_width * per_unit)
    activations += int(vision_units * (VISION_INPUT_BYTES if checkpointing else VISION_BYTES))
    activations += int(qformer_units * QFORMER_BYTES)
    states = int(trained_bytes * trained)
    caching = weights + vision + 4 * trained
    return MemoryEstimate(
        weights, states, activations, max(weights + states + activations, caching)
    )
