"""Who reads whom in a QVision model: the text the query tokens, these the patches.

Both stand in the Q-Former, whose attention hands its weights out on request, so that no kernel is
switched. The text reads once, before the decoder, and nothing but query tokens.

Shape letters: B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qvft.models.attention_weights import Attention, over_heads, watched
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.stages import embed_rows, encode_images

READING = "the text's cross-attention to the query tokens, in the Q-Former"
LIMIT = (
    "The text reads the query tokens before it goes into the decoder, so that a map depends on the "
    "image and on the token at the place that writes, not on the words before that."
)


def attend(
    model: QVisionForConditionalGeneration, pixel_values: Tensor, rows: Mapping[str, Tensor]
) -> Attention:
    """As `attention.attend`: every position of a row reads the query tokens, wherever it stands."""
    seen: list[tuple[Tensor, tuple[Tensor, ...]]] = []
    read: list[tuple[Tensor, Tensor]] = []
    qformer = model.qformer
    with (
        _asked_for_weights(qformer),
        _asked_for_weights(qformer.text_reader),
        watched(qformer, seen.append),
        watched(qformer.text_reader, read.append),
    ):
        images = encode_images(model, pixel_values)
        image_index = torch.arange(len(images), device=images.device)
        embed_rows(model, rows, images=images, image_index=image_index)
    (states, looks), (_, text) = seen[0], read[0]
    return Attention(
        text=over_heads(text)[None],
        is_query=torch.ones(text.shape[0], text.shape[-1], dtype=torch.bool, device=text.device),
        cross=torch.stack([over_heads(weights) for weights in looks]),
        has_class_token=False,
        grid=model.config.patch_grid,
        queries=states.float(),
        reading=READING,
        limit=LIMIT,
        text_layers=(0,),
        cross_layers=tuple(range(len(looks))),
    )


@contextmanager
def _asked_for_weights(module: nn.Module) -> Iterator[None]:
    """Calls a module with `output_attentions`, whoever calls it."""

    def ask(module: nn.Module, inputs: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**options, "output_attentions": True}

    handle = module.register_forward_pre_hook(ask, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
