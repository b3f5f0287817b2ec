"""The attention of a forward pass: which patches the queries read, which queries the decoder reads.

The pass is the one of `stages.py`; nothing is computed a second way. Attention kernels such as sdpa
do not hand their weights out, so the model attends eagerly for the pass and as before after it.

Shape letters: B rows, L row length, Q query tokens, P patches, W Q-Former width, N decoder layers,
M cross-attention layers of the Q-Former.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.errors import ModelError
from qvft.models.stages import decode_hidden, embed_rows, encode_images

WITH_QFORMER = ("blip-2", "instructblip")
"""`model_type`s whose decoder reads an image through a Q-Former, as visual tokens in front."""


@dataclass(frozen=True)
class Attention:
    """Attention weights of a pass, averaged over heads, in float32; rows sum to 1.

    Attributes:
        decoder: (N, B, L, L) from each position of a row to each; nothing to later ones.
        cross: (M, B, Q, P + 1) from each query token to the class token, which is first, and the
            patches, row by row from the top left.
        queries: (B, Q, W) what the Q-Former made of the query tokens.
        decoder_layers: (N,) numbers of the decoder's layers, from 0.
        cross_layers: (M,) numbers of the Q-Former's layers that look at the image, from 0.
    """

    decoder: Tensor
    cross: Tensor
    queries: Tensor
    decoder_layers: tuple[int, ...]
    cross_layers: tuple[int, ...]


@torch.no_grad()
def attend(model: PreTrainedModel, pixel_values: Tensor, rows: Mapping[str, Tensor]) -> Attention:
    """The attention of one pass over rows of tokens with their images.

    Args:
        model: in evaluation mode; afterwards it attends as it did before.
        pixel_values: (B, 3, height, width) normalised, one image a row.
        rows: `input_ids` and `attention_mask` (B, L), padded on the right, and where the Q-Former
            reads the prompt `qformer_input_ids` and `qformer_attention_mask` (B, T).

    Raises:
        ModelError: its decoder does not read the image through a Q-Former.
        QvftError: as `stages.embed_rows`.
    """
    if model.config.model_type not in WITH_QFORMER:
        raise ModelError(
            f"model_type is {model.config.model_type}",
            expected=f"a model with visual tokens from a Q-Former: {', '.join(WITH_QFORMER)}",
        )
    crossing = {
        number: layer.crossattention.attention
        for number, layer in enumerate(model.qformer.encoder.layer)
        if layer.has_cross_attention
    }
    decoding = {
        number: layer.self_attn
        for number, layer in enumerate(model.language_model.get_decoder().layers)
    }
    cross: dict[int, Tensor] = {}
    decoder: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    image_index = torch.arange(len(pixel_values), device=pixel_values.device)
    with eager_attention(model), ExitStack() as hooks:
        for modules, kept in ((crossing, cross), (decoding, decoder)):
            for number, module in modules.items():
                hooks.enter_context(_watched(module, _keep_weights(kept, number)))
        hooks.enter_context(_watched(model.qformer, _keep_states(outputs)))
        images = encode_images(model, pixel_values)
        embeds = embed_rows(model, rows, images=images, image_index=image_index)
        decode_hidden(model, embeds, rows["attention_mask"])
    count = model.query_tokens.shape[1]
    return Attention(
        decoder=torch.stack(list(decoder.values())),
        cross=torch.stack(list(cross.values())),
        queries=outputs[0][:, :count].float(),
        decoder_layers=tuple(decoder),
        cross_layers=tuple(cross),
    )


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Lets a model and all models in it attend eagerly, and afterwards as each did before.

    Weights are not touched, so that quantised ones stay as they are.
    """
    before = attention_kernels(model)
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        # From the outermost inwards, since setting a model sets those in it too.
        for name, kernel in before.items():
            model.get_submodule(name).set_attn_implementation(kernel)


def attention_kernels(model: PreTrainedModel) -> dict[str, str]:
    """Attention kernel by module name, of the model ("") and each model in it, outer ones first."""
    return {
        name: module.config._attn_implementation
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel)
    }


@contextmanager
def _watched(module: nn.Module, watch: Callable[..., None]) -> Iterator[None]:
    handle = module.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def _keep_weights(kept: dict[int, Tensor], number: int) -> Callable[..., None]:
    """A hook that keeps an attention module's weights, the second thing it returns."""

    def keep(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        kept[number] = output[1].float().mean(dim=1)  # over heads

    return keep


def _keep_states(kept: dict[int, Tensor]) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        kept[0] = output.last_hidden_state

    return keep
