"""DINOv2 (ONNX) as a `Blip2VisionModel` that computes the same.

Both are pre-norm ViTs with a class token, learned positions and GELU. DINOv2's LayerScale scales
the outputs of a linear layer, so it is folded into that layer's weights and bias. Positions are
interpolated once, to the image size chosen, as `Dinov2Model` does in every forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Blip2VisionConfig, Dinov2Config

from qvft.errors import ModelError
from qvft.models.image_size import interpolated
from tools.real_parts.parts import reader

IMAGE_MEAN = [0.485, 0.456, 0.406]
IMAGE_STD = [0.229, 0.224, 0.225]
"""ImageNet's, which DINOv2 was trained with. Source: DINOv2, dinov2/data/transforms.py."""

VITS14 = Dinov2Config(
    hidden_size=384, num_attention_heads=6, num_hidden_layers=12, patch_size=14, image_size=518
)


_RENAMED = {
    f"attention.{part}": f"attention.{name}_proj"
    for part, name in (
        ("attention.query", "q"),
        ("attention.key", "k"),
        ("attention.value", "v"),
        ("output.dense", "o"),
    )
}
"""Names in the graph, and those that `Dinov2Model` has now."""


class Node(NamedTuple):
    """A node of an ONNX graph."""

    kind: str
    inputs: list[str]
    outputs: list[str]


def read_graph(path: Path) -> tuple[dict[str, Tensor], list[Node]]:
    """Weights by name, and nodes, of an ONNX file."""
    onnx = reader("onnx")
    graph = onnx.load(str(path)).graph
    weights = {
        one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy())
        for one in graph.initializer
    }
    return weights, [Node(one.op_type, list(one.input), list(one.output)) for one in graph.node]


def dinov2_state(
    weights: Mapping[str, Tensor], nodes: Iterable[Node], *, prefix: str = "backbone."
) -> dict[str, Tensor]:
    """State dict of a `Dinov2Model`, without its mask token, from an exported graph.

    The export keeps names, except of the weights of linear layers, which it transposes: they are
    found by the bias that is added to their product. The positions are two tensors without names:
    those of the class token and those of the patches.
    """
    state = {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }
    products: dict[str, str] = {}
    for node in nodes:
        if node.kind == "MatMul" and node.inputs[1] in weights:
            products[node.outputs[0]] = node.inputs[1]
        if node.kind != "Add":
            continue
        biases = [name for name in node.inputs if name.startswith(prefix)]
        sources = [products[name] for name in node.inputs if name in products]
        if biases and sources:
            key = biases[0].removeprefix(prefix).removesuffix("bias") + "weight"
            state[key] = weights[sources[0]].T.contiguous()
    width = state["embeddings.cls_token"].shape[-1]
    positions = [
        weight
        for name, weight in weights.items()
        if not name.startswith(prefix) and weight.dim() == 3 and weight.shape[::2] == (1, width)
    ]
    if len(positions) != 2:
        raise ModelError(
            f"{len(positions)} tensors of positions in the graph",
            where="vision",
            expected="two: of the class token, and of the patches",
        )
    positions.sort(key=lambda weight: weight.shape[1])
    state["embeddings.position_embeddings"] = torch.cat(positions, dim=1)
    return {_renamed(key): weight for key, weight in state.items()}


def _renamed(key: str) -> str:
    for old, new in _RENAMED.items():
        key = key.replace(f".{old}.", f".{new}.")
    return key


def vision_config(source: Dinov2Config, image_size: int) -> Blip2VisionConfig:
    """Configuration of the `Blip2VisionModel` that equals a `Dinov2Model`.

    Raises:
        ModelError: `image_size` is no multiple of the patch size.
    """
    assert isinstance(source.patch_size, int)
    if image_size % source.patch_size:
        raise ModelError(
            f"{image_size}", where="image size", expected=f"a multiple of {source.patch_size}"
        )
    return Blip2VisionConfig(
        hidden_size=source.hidden_size,
        intermediate_size=source.hidden_size * source.mlp_ratio,
        num_hidden_layers=source.num_hidden_layers,
        num_attention_heads=source.num_attention_heads,
        image_size=image_size,
        patch_size=source.patch_size,
        hidden_act=source.hidden_act,
        layer_norm_eps=source.layer_norm_eps,
        initializer_range=source.initializer_range,
    )


def vision_state(source: Mapping[str, Tensor], config: Blip2VisionConfig) -> dict[str, Tensor]:
    """State dict of a `Blip2VisionModel` that computes what the `Dinov2Model` of `source` does.

    Raises:
        ModelError: `source` has a weight that is not used.
    """
    left = dict(source)
    left.pop("embeddings.mask_token", None)  # replaces masked patches in pretraining only
    assert isinstance(config.image_size, int) and isinstance(config.patch_size, int)
    side = config.image_size // config.patch_size
    state = {
        "embeddings.class_embedding": left.pop("embeddings.cls_token"),
        "embeddings.position_embedding": interpolated(
            left.pop("embeddings.position_embeddings"), side
        ),
        "post_layernorm.weight": left.pop("layernorm.weight"),
        "post_layernorm.bias": left.pop("layernorm.bias"),
    }
    for kind in ("weight", "bias"):
        projection = f"embeddings.patch_embeddings.projection.{kind}"
        state[f"embeddings.patch_embedding.{kind}"] = left.pop(projection)
    for number in range(config.num_hidden_layers):
        old, new = f"encoder.layer.{number}.", f"encoder.layers.{number}."
        scales = [left.pop(f"{old}layer_scale{which}.lambda1") for which in (1, 2)]
        for kind in ("weight", "bias"):
            state[f"{new}self_attn.qkv.{kind}"] = torch.cat(
                [left.pop(f"{old}attention.{part}_proj.{kind}") for part in "qkv"]
            )
            for scale, there, here in (
                (scales[0], "attention.o_proj", "self_attn.projection"),
                (scales[1], "mlp.fc2", "mlp.fc2"),
            ):
                weight = left.pop(f"{old}{there}.{kind}")
                column = scale.unsqueeze(1) if kind == "weight" else scale
                state[f"{new}{here}.{kind}"] = column * weight
            for there, here in (
                ("norm1", "layer_norm1"),
                ("norm2", "layer_norm2"),
                ("mlp.fc1", "mlp.fc1"),
            ):
                state[f"{new}{here}.{kind}"] = left.pop(f"{old}{there}.{kind}")
    if left:
        raise ModelError(f"weights that no layer takes: {', '.join(sorted(left))}", where="vision")
    return state
