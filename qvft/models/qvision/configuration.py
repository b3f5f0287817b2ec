"""QVision configuration: vision tower (CLIP, SigLIP, DINOv2), Q-Former, causal decoder.

This file, `encoder.py`, `qformer.py` and `modeling.py` can be copied beside a model's weights, so
they import nothing but torch and transformers outside of this package.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, CLIPConfig, GPTNeoConfig, PretrainedConfig

WHOLE_TYPES = ("clip", "siglip")
"""Model types with a vision and a text tower; only the vision tower is used."""
VISION_TYPES = (
    *WHOLE_TYPES,
    "clip_vision_model",
    "siglip_vision_model",
    "dinov2",
    "dinov2_with_registers",
)
"""Model types of vision towers. SigLIP 2 of one image size is of type `siglip`."""

OLD_FUNCTION = (
    "written by qvft 0.1.0, whose QVision computed another function than the published one: "
    "its weights mean nothing to this one. Train it again, or use that version of qvft"
)


class QVisionConfig(PretrainedConfig):
    """Geometry of a QVision model; the defaults are the published system.

    Args:
        vision_config: configuration (or its dict) of one of `VISION_TYPES`. With a whole `clip` or
            `siglip` the unused text tower stays in the model. Default: CLIP ViT-B/32, whole.
        text_config: configuration (or its dict) of a causal decoder. Default: GPT-Neo, 1024 wide,
            24 blocks of which every other attends within 256 tokens, 16 heads, with
            `<START>` and `<END>` behind its own 50,257 tokens.
        qformer_hidden_size: width of the Q-Former. Must equal the width of the decoder's token
            embeddings and last hidden states, since text and image are fused there.
        qformer_num_heads: attention heads.
        qformer_num_blocks: number of blocks.
        qformer_ffn_factor: inner width of its feed-forward layers, as a multiple of the width.
        qformer_dropout: dropout of attention weights, in feed-forward layers (twice), of the
            decoder's token embeddings and of the input of the language-model head.
        num_query_tokens: learned query tokens, preceded by one more, the context token.
        initializer_range: standard deviation of initial weights outside tower and decoder.

    Raises:
        ValueError: the tower is not among `VISION_TYPES`, the decoder not causal, widths and heads
            do not fit, or the fields are those of the model that qvft 0.1.0 called QVision.
    """

    model_type = "qvision"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        vision_config: PretrainedConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        *,
        qformer_hidden_size: int = 1024,
        qformer_num_heads: int = 8,
        qformer_num_blocks: int = 2,
        qformer_ffn_factor: int = 4,
        qformer_dropout: float = 0.1,
        num_query_tokens: int = 64,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        if "global_context_token" in kwargs:
            raise ValueError(OLD_FUNCTION)
        self.vision_config = _nested(vision_config) or CLIPConfig()
        if self.vision_config.model_type not in VISION_TYPES:
            raise ValueError(
                f'vision_config has model_type "{self.vision_config.model_type}"; '
                f"expected one of {', '.join(VISION_TYPES)}"
            )
        self.text_config = _nested(text_config) or GPTNeoConfig(
            vocab_size=50_259,
            hidden_size=1024,
            num_layers=24,
            num_heads=16,
            bos_token_id=50_257,
            eos_token_id=50_258,
            pad_token_id=50_256,
        )
        self.qformer_hidden_size = qformer_hidden_size
        self.qformer_num_heads = qformer_num_heads
        self.qformer_num_blocks = qformer_num_blocks
        self.qformer_ffn_factor = qformer_ffn_factor
        self.qformer_dropout = qformer_dropout
        self.num_query_tokens = num_query_tokens
        self.initializer_range = initializer_range
        if self.text_config.is_encoder_decoder:
            raise ValueError(
                f'text_config has model_type "{self.text_config.model_type}", an encoder-decoder; '
                "expected a causal decoder"
            )
        super().__init__(**kwargs)
        self._check_widths()

    @property
    def num_states(self) -> int:
        """Visual tokens per image: the context token and the query tokens."""
        return self.num_query_tokens + 1

    @property
    def tower_config(self) -> PretrainedConfig:
        """The configuration of the vision tower alone."""
        whole = self.vision_config.model_type in WHOLE_TYPES
        return self.vision_config.vision_config if whole else self.vision_config

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        tower = self.tower_config
        height, width = _pair(tower.image_size)
        patch_height, patch_width = _pair(tower.patch_size)
        return height // patch_height, width // patch_width

    @property
    def tokens_before_patches(self) -> int:
        """Positions of the tower's output before the patches: class token and register tokens."""
        tower = self.tower_config
        if tower.model_type.startswith("siglip"):
            return 0
        return 1 + getattr(tower, "num_register_tokens", 0)

    @property
    def token_width(self) -> int:
        """Width of the decoder's token embeddings; OPT-350m's is less than its blocks' width."""
        return getattr(self.text_config, "word_embed_proj_dim", self.text_config.hidden_size)

    def _check_widths(self) -> None:
        width = self.qformer_hidden_size
        if width != self.token_width:
            raise ValueError(
                f"qformer_hidden_size is {width}, the decoder's token embeddings are "
                f"{self.token_width} wide; both have to be the same"
            )
        if width % self.qformer_num_heads:
            raise ValueError(
                f"qformer_hidden_size is {width}; it has to be a multiple of qformer_num_heads "
                f"({self.qformer_num_heads})"
            )


def _nested(given: PretrainedConfig | dict[str, Any] | None) -> PretrainedConfig | None:
    """A nested configuration as an object."""
    if not isinstance(given, dict):
        return given
    fields = dict(given)
    model_type = fields.pop("model_type", None)
    if model_type is None:
        raise ValueError("a nested configuration has no model_type")
    return AutoConfig.for_model(model_type, **fields)


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
