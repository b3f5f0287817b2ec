"""Who reads whom in a QVision model: the text the visual tokens, these the patches.

Both are attention of the Q-Former, which hands its weights out on request, so that no kernel is
switched. The text reads once, after the decoder, and nothing but visual tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qvft.models.attention_weights import Attention, over_heads
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.stages import encode_vision

READING = "the text's attention to the visual tokens, behind the decoder"
LIMIT = (
    "The decoder has read the words before when a word reads the visual tokens, so that a map "
    "depends on the image and on these words."
)


def attend(
    model: QVisionForConditionalGeneration, pixel_values: Tensor, rows: Mapping[str, Tensor]
) -> Attention:
    """As `attention.attend`: every position of a row reads the visual tokens of its image."""
    features = encode_vision(model, pixel_values).to(model.qformer.dtype)
    states, looks = model.qformer(features, output_attentions=True)
    text = model(
        input_ids=rows["input_ids"],
        attention_mask=rows["attention_mask"],
        visual_tokens=states,
        output_attentions=True,
        use_cache=False,
    ).text_attention
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
