"""A model family: BLIP-2 with a two-layer MLP as language projection, as in LLaVA-1.5.

Source of the projection: arXiv 2310.03744, section 3.3. Shape letters: I images, P patches,
W ViT width, Q query tokens, D decoder width.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, Blip2Config, Blip2ForConditionalGeneration

from qvft.models.blip2 import (
    continues_prefix,
    decode_hidden,
    decode_prefix,
    embed_rows,
    encode_vision,
    generate,
    query_states,
)
from qvft.models.families import Family

__all__ = [
    "continues_prefix", "decode_hidden", "decode_prefix", "embed_rows", "encode_features",
    "encode_vision", "generate", "query_states",
]  # fmt: skip


class MlpBlip2Config(Blip2Config):
    model_type = "mlp_blip2"


class MlpBlip2(Blip2ForConditionalGeneration):
    config_class = MlpBlip2Config

    language_projection: nn.Sequential  # type: ignore[assignment]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width, decoder_width = config.qformer_config.hidden_size, config.text_config.hidden_size
        self.language_projection = nn.Sequential(
            nn.Linear(width, decoder_width), nn.GELU(), nn.Linear(decoder_width, decoder_width)
        )
        self.post_init()


def encode_features(model: Any, features: Tensor) -> Tensor:
    """The visual prefix (I, Q, D) of ViT features (I, P, W)."""
    projection = model.language_projection
    return projection(query_states(model, features).to(projection[0].weight.dtype))


AutoConfig.register(MlpBlip2Config.model_type, MlpBlip2Config)
PARTS = {
    "vision": "vision_model", "qformer": "qformer", "query_tokens": "query_tokens",
    "language_projection": "language_projection", "decoder": "language_model",
}  # fmt: skip

FAMILY = Family(
    "mlp_blip2", "MlpBlip2", MlpBlip2Config.model_type, PARTS, stages=__name__, module=__name__
)
