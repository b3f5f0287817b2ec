"""Attention of a QVision model: text to visual tokens, and visual tokens to patches.

Both are in the Q-Former, which returns its weights on request. Text attends to the visual tokens
once, after the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qvft.models.attention_capture import Attention, mean_over_heads
from qvft.models.forward_stages import encode_vision
from qvft.models.qvision.modeling import QVisionForConditionalGeneration

READING = "the text's attention to the visual tokens, after the decoder"
LIMIT = (
    "The decoder reads the words before a position first, so a map depends on the image and on "
    "these words."
)


def attend(
    model: QVisionForConditionalGeneration, pixel_values: Tensor, rows: Mapping[str, Tensor]
) -> Attention:
    """As `attention_maps.attend`: every position of a row attends to the visual tokens of its
    image.
    """
    features = encode_vision(model, pixel_values).to(model.qformer.dtype)
    states, cross = model.qformer(features, output_attentions=True)
    text = model(
        input_ids=rows["input_ids"],
        attention_mask=rows["attention_mask"],
        visual_tokens=states,
        output_attentions=True,
        use_cache=False,
    ).text_attention
    return Attention(
        text=mean_over_heads(text)[None],
        is_query=torch.ones(text.shape[0], text.shape[-1], dtype=torch.bool, device=text.device),
        cross=torch.stack([mean_over_heads(weights) for weights in cross]),
        has_class_token=False,
        grid=model.config.patch_grid,
        queries=states.float(),
        reading=READING,
        limit=LIMIT,
        text_layers=(0,),
        cross_layers=tuple(range(len(cross))),
        features=features.float(),
    )
