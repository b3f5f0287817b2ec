"""Attention mask of visual tokens in front of the text: BLIP-2 and question-aware models.

Shape letters: B rows, L row length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.models.attention_capture import Attention, eager_attention, over_heads, watched
from qvft.models.decoders import decoder_of
from qvft.models.forward_stages import decode_hidden, embed_rows, encode_images

READING = "the decoder's attention to the visual tokens"


def attend(model: PreTrainedModel, pixel_values: Tensor, rows: Mapping[str, Tensor]) -> Attention:
    """As `attention_maps.attend`: positions attend to earlier ones, including visual tokens."""
    qformer = model.get_submodule("qformer")
    blocks = model.get_submodule(decoder_of(model.config).layers)
    crossing = {
        number: layer.get_submodule("crossattention.attention")
        for number, layer in enumerate(cast(nn.ModuleList, qformer.get_submodule("encoder.layer")))
        if layer.has_cross_attention
    }
    decoding = {
        number: layer.get_submodule("attn" if hasattr(layer, "attn") else "self_attn")
        for number, layer in enumerate(cast(nn.ModuleList, blocks))
    }
    cross: dict[int, Tensor] = {}
    decoder: dict[int, Tensor] = {}
    states: list[Tensor] = []
    image_index = torch.arange(len(pixel_values), device=pixel_values.device)
    with eager_attention(model), ExitStack() as hooks:
        for modules, kept in ((crossing, cross), (decoding, decoder)):
            for number, module in modules.items():
                hooks.enter_context(watched(module, _keep_weights(kept, number)))
        hooks.enter_context(
            watched(qformer, lambda output: states.append(output.last_hidden_state))
        )
        images = encode_images(model, pixel_values)
        embeds = embed_rows(model, rows, images=images, image_index=image_index)
        decode_hidden(model, embeds, rows["attention_mask"])
    crossed = torch.stack(list(cross.values()))
    side = round((crossed.shape[-1] - 1) ** 0.5)
    return Attention(
        text=torch.stack(list(decoder.values())),
        is_query=rows["input_ids"] == model.config.image_token_id,
        cross=crossed,
        has_class_token=True,
        grid=(side, side),
        queries=states[0][:, : model.get_parameter("query_tokens").shape[1]].float(),
        reading=READING,
        limit="",
        text_layers=tuple(decoder),
        cross_layers=tuple(cross),
    )


def _keep_weights(kept: dict[int, Tensor], number: int) -> Callable[[Any], None]:
    """Keeps an attention module's weights, its second output."""

    def keep(output: tuple[Tensor, Tensor]) -> None:
        kept[number] = over_heads(output[1])

    return keep
