"""Attention of a forward pass: queries to patches, and text to queries.

Uses the forward pass of `forward_stages.py`.

Shape letters: B rows, L row length, T question tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.errors import ModelError
from qvft.models.attention_capture import Attention, eager_attention, mean_over_heads, output_hook
from qvft.models.decoders import decoder_of
from qvft.models.forward_stages import decode_hidden, embed_rows, encode_images, encode_prompts
from qvft.models.qvision import attention_maps as qvision

READING = "the decoder's attention to the visual tokens"


@torch.no_grad()
def attend(model: PreTrainedModel, pixel_values: Tensor, rows: Mapping[str, Tensor]) -> Attention:
    """The attention of one pass over rows of tokens with their images; raises ModelError for a
    family without it.

    Args:
        model: in evaluation mode; its attention kernel is restored afterwards.
        pixel_values: (B, 3, height, width) normalised, one image per row.
        rows: `input_ids` and `attention_mask` (B, L), padded on the right, and if the Q-Former
            reads the prompt `qformer_input_ids` and `qformer_attention_mask` (B, T).
    """
    attend_as = _ATTENTION.get(model.config.model_type)
    if attend_as is None:
        raise ModelError(
            f"model_type is {model.config.model_type}",
            expected=f"a model with a Q-Former: {', '.join(_ATTENTION)}",
        )
    return attend_as(model, pixel_values, rows)


def _attend_to_prefix(
    model: PreTrainedModel, pixel_values: Tensor, rows: Mapping[str, Tensor]
) -> Attention:
    """As `attend`, of BLIP-2 and question-aware models: positions attend to earlier ones with
    visual tokens, or in an encoder-decoder to what its encoder makes of these and the prompt.
    """
    qformer = model.get_submodule("qformer")
    blocks = model.get_submodule(decoder_of(model.config).layers)
    cross_modules = {
        number: layer.get_submodule("crossattention.attention")
        for number, layer in enumerate(cast(nn.ModuleList, qformer.get_submodule("encoder.layer")))
        if layer.has_cross_attention
    }
    decoder_modules = {
        number: _attention_of(layer) for number, layer in enumerate(cast(nn.ModuleList, blocks))
    }
    cross: dict[int, Tensor] = {}
    decoder: dict[int, Tensor] = {}
    states: list[Tensor] = []
    image_index = torch.arange(len(pixel_values), device=pixel_values.device)
    with eager_attention(model), ExitStack() as hooks:
        for modules, weights in ((cross_modules, cross), (decoder_modules, decoder)):
            for number, module in modules.items():
                hooks.enter_context(output_hook(module, _store_weights(weights, number)))
        hooks.enter_context(
            output_hook(qformer, lambda output: states.append(output.last_hidden_state))
        )
        images = encode_images(model, pixel_values)
        embeds = embed_rows(model, rows, images=images, image_index=image_index)
        prompts = encode_prompts(model, rows, images=images, image_index=image_index)
        decode_hidden(model, embeds, rows["attention_mask"], prompts=prompts)
    read, query_states = rows["input_ids"], states[0]
    if prompts is not None:
        read = rows["encoder_input_ids"][prompts.index]
        if len(query_states) != len(read):  # the Q-Former has read each prompt once
            query_states = query_states[prompts.index]
            cross = {number: weights[prompts.index] for number, weights in cross.items()}
    crossed = torch.stack(list(cross.values()))
    side = round((crossed.shape[-1] - 1) ** 0.5)
    return Attention(
        text=torch.stack(list(decoder.values())),
        is_query=read == model.config.image_token_id,
        cross=crossed,
        has_class_token=True,
        grid=(side, side),
        queries=query_states[:, : model.get_parameter("query_tokens").shape[1]].float(),
        reading=READING,
        limit="",
        text_layers=tuple(decoder),
        cross_layers=tuple(cross),
    )


def _attention_of(block: nn.Module) -> nn.Module:
    """The attention through which a decoder's block reads visual tokens."""
    for name in ("self_attn", "attn", "layer.1.EncDecAttention"):
        with suppress(AttributeError):
            return block.get_submodule(name)
    raise AssertionError(f"{type(block).__name__} has no known attention module")


def _store_weights(weights: dict[int, Tensor], number: int) -> Callable[[Any], None]:
    """A callback that stores an attention module's weights, its last output."""

    def store(output: tuple[Tensor, ...]) -> None:
        weights[number] = mean_over_heads(output[-1])

    return store


_ATTENTION: dict[str, Callable[..., Attention]] = {
    "blip-2": _attend_to_prefix,
    "instructblip": _attend_to_prefix,
    "qvision": qvision.attend,
}
"""By `model_type`."""
