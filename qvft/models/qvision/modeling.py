"""QVision model: vision tower, causal decoder, and a Q-Former that fuses decoded text and image.

Shape letters: I images, B rows, L tokens, P patches, Q visual tokens, D width, H heads,
V vocabulary.

The published components and their parameter counts (tied weights count once):

    vision_model    152,064,769  whole CLIP ViT-B/32 151,277,313, linear 768 -> 1024 787,456
    qformer          66,196,481  see `qformer.py`
    language_model  355,800,064  GPT-Neo, 1024 wide, 24 blocks of 12,593,152, 50,259 tokens

The whole CLIP is kept, with its text tower unused, so that a CLIP checkpoint loads and saves with
all its weights and the count is the published one. A `clip_vision_model` configuration drops the
text tower. In the published count nothing in the first row is trained, so the linear layer keeps
its initial weights. In the third row 240,364,544 are trained: the top 15 blocks, the last norm and
the tied embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.encoder import QVisionEncoder
from qvft.models.qvision.qformer import QVisionAttention, QVisionQFormer

CACHE = next(
    field.name
    for field in fields(CausalLMOutputWithPast)
    if field.name in ("cache", "past_key_values")
)
"""Name of a decoder's KV cache in transformers: `cache` since 5.24, `past_key_values` before.

As in `models/prefix_cache.py`, which is not copied along with this file.
"""


@dataclass
class QVisionOutput(CausalLMOutputWithPast):
    """What `QVisionForConditionalGeneration` returns: `loss` () mean over the supervised tokens,
    `logits` (B, L, V), the decoder's cache, its `hidden_states` and its own `attentions` where
    these are eager, and:

    Attributes:
        text_attention: (B, H, L, Q) from each position to the visual tokens.
        query_attentions: for each block of the Q-Former (I, H, Q, P) from visual token to patch;
            only where the images were given as pixels.
    """

    text_attention: Tensor | None = None
    query_attentions: tuple[Tensor, ...] | None = None


class QVisionForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """QVision with its language-model head: loss, generation, and the stages of both.

    `encode_images`, `embed`, `decode` and `read` are the stages of `forward`, for callers that
    compute some of them once for several rows.
    """

    config_class = QVisionConfig
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "QVisionQFormer",
        "CLIPVisionEmbeddings",
        "CLIPTextEmbeddings",
        "CLIPEncoderLayer",
        "SiglipVisionEmbeddings",
        "SiglipTextEmbeddings",
        "SiglipEncoderLayer",
        "SiglipMultiheadAttentionPoolingHead",
        "Dinov2Embeddings",
        "Dinov2Layer",
        "Dinov2WithRegistersEmbeddings",
        "Dinov2WithRegistersLayer",
    ]
    _supports_sdpa = True

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__(config)
        # GPT-Neo and Gemma 2 have no sdpa; it then applies to the vision tower.
        text = config.text_config
        decoder = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(text), None)
        has_sdpa = getattr(decoder, "_supports_sdpa", True)
        if not has_sdpa and text._attn_implementation == "sdpa":
            text._attn_implementation = "eager"
        self.vision_model = QVisionEncoder(config)
        self.qformer = QVisionQFormer(config)
        self.language_model = AutoModelForCausalLM.from_config(text)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises Q-Former and projection; tower and decoder initialise themselves."""
        super()._init_weights(module)
        if isinstance(module, QVisionQFormer):
            init.normal_(module.query_tokens, std=self.config.initializer_range)
            init.normal_(module.img_context, std=self.config.initializer_range)
            init.ones_(module.cross_scale)
        if isinstance(module, QVisionAttention):
            init.normal_(module.in_proj_weight, std=self.config.initializer_range)
            init.zeros_(module.in_proj_bias)

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the decoder's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language-model head's weights; `head` computes logits."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the language-model head."""
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> PreTrainedModel:
        """The decoder without its head."""
        return self.language_model.get_decoder()

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Visual tokens (I, Q, D) of normalised images (I, 3, height, width)."""
        return self._encode(pixel_values, output_attentions=False)[0]

    def image_memory(self, visual_tokens: Tensor) -> Tensor:
        """Keys and values (I, 2, H, Q, D / H) of visual tokens (I, Q, D), for the text's
        cross-attention.

        They depend only on the image, so generation computes them once.
        """
        states = visual_tokens.to(self.qformer.dtype)
        return self.qformer.decoder_cross_attn.memory(states, states)

    def embed(self, input_ids: Tensor) -> Tensor:
        """The decoder's input (B, L, D): token embeddings of (B, L), without image."""
        return self.qformer.token_dropout(self.get_input_embeddings()(input_ids))

    def decode(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        *,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """The decoder's output; `last_hidden_state` (B, L, D) is after its last norm.

        Args:
            inputs_embeds: (B, L, D) from `embed`.
            attention_mask: (B, past + L) 1 at tokens, 0 at padding on either side. Position ids
                count tokens only, so padding changes nothing. None: no padding.
            position_ids: (B, L) instead of those.
            cache: KV cache of the preceding tokens.
        """
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            counted = attention_mask.long().cumsum(dim=-1) - 1
            position_ids = counted.clamp(min=0)[:, -inputs_embeds.shape[1] :]
        return self.get_decoder()(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            **{CACHE: cache},
        )

    def read(self, hidden: Tensor, image_memory: Tensor) -> Tensor:
        """Input of the language-model head (B, L, D): hidden states after cross-attention to the
        image.

        Args:
            hidden: (B, L, D), the `last_hidden_state` of `decode`.
            image_memory: (B, 2, H, Q, D / H), one image per row.

        Raises:
            ValueError: there is not one image for each row.
        """
        return self._read(hidden, image_memory, output_attentions=False)[0]

    def head(self, read: Tensor) -> Tensor:
        """Logits (B, L, V) of (B, L, D) from `read`, capped as the decoder's own are.

        Source: `Gemma2ForCausalLM.forward` in transformers, `final_logit_softcapping`.
        """
        logits = self.get_output_embeddings()(read)
        cap = getattr(self.config.text_config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        visual_tokens: Tensor | None = None,
        image_memory: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
    ) -> QVisionOutput | tuple[Any, ...]:
        """Logits, and the loss if labels are given.

        Args:
            input_ids: (B, L); with a cache, only those after the cached ones.
            attention_mask, position_ids: as in `decode`.
            pixel_values: (B, 3, height, width), one image per row; or
            visual_tokens: (B, Q, D) from `encode_images`; or
            image_memory: (B, 2, H, Q, D / H) from the method of that name.
            inputs_embeds: (B, L, D) from `embed`, instead of `input_ids`.
            cache: the decoder's KV cache; also as `past_key_values`, its name before transformers
                5.24.
            labels: (B, L), -100 at positions without loss; shifted here.
            output_attentions: return `text_attention` and `query_attentions`, and the decoder's own
                if its attention is eager.
            return_dict: False returns a tuple.
            logits_to_keep: last positions to give logits of, or their indices; 0: all.
            num_items_in_batch: divisor of the loss, instead of the number of supervised tokens.

        Raises:
            ValueError: not one of ids and embeddings, not exactly one form of the images, two
                caches, or another number of images than rows.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected either input_ids or inputs_embeds")
        if cache is not None and past_key_values is not None:
            raise ValueError("cache and past_key_values are two names of one thing")
        if sum(given is not None for given in (pixel_values, visual_tokens, image_memory)) != 1:
            raise ValueError(
                "expected the images in one form: pixel_values, visual_tokens or image_memory"
            )
        output_attentions = bool(output_attentions)
        query_attentions: tuple[Tensor, ...] = ()
        if pixel_values is not None:
            visual_tokens, query_attentions = self._encode(
                pixel_values, output_attentions=output_attentions
            )
        if visual_tokens is not None:
            image_memory = self.image_memory(visual_tokens)
        assert image_memory is not None
        if input_ids is not None:
            inputs_embeds = self.embed(input_ids)
        assert inputs_embeds is not None
        eager = self.get_decoder().config._attn_implementation == "eager"
        decoded = self.decode(
            inputs_embeds,
            attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            use_cache=use_cache,
            output_attentions=output_attentions and eager,
            output_hidden_states=output_hidden_states,
        )
        assert decoded.last_hidden_state is not None
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        read, text_attention = self._read(
            decoded.last_hidden_state[:, keep], image_memory, output_attentions=output_attentions
        )
        logits = self.head(read)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=logits.shape[-1],
                num_items_in_batch=num_items_in_batch,
            )
        output = QVisionOutput(
            loss=loss,
            logits=logits,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
            text_attention=text_attention,
            query_attentions=query_attentions or None,
            **{CACHE: decoded.get(CACHE)},
        )
        return output.to_tuple() if return_dict is False else output

    @torch.no_grad()
    def generate(  # type: ignore[override]  # takes images by keyword
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        *,
        pixel_values: Tensor | None = None,
        visual_tokens: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Tokens (B, L + new) generated after prompts, each with its image; see `GenerationMixin`.

        Without a prompt every row begins with the bos token. Images are encoded once, not per token
        or beam.

        Args:
            inputs: (B, L) prompts, padded on the left; also as `input_ids`.
            pixel_values: (B, 3, height, width); or
            visual_tokens: (B, Q, D) from `encode_images`.

        Raises:
            ValueError: not exactly one of `pixel_values` and `visual_tokens`.
        """
        if (pixel_values is None) == (visual_tokens is None):
            raise ValueError("generate needs the images as either pixel_values or visual_tokens")
        if pixel_values is not None:
            visual_tokens = self.encode_images(pixel_values)
        assert visual_tokens is not None
        memory = self.image_memory(visual_tokens)
        return super().generate(inputs, generation_config, image_memory=memory, **options)  # type: ignore[misc]  # stub wants a protocol

    def _encode(
        self, pixel_values: Tensor, *, output_attentions: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = self.vision_model(pixel_values).to(self.qformer.dtype)
        return self.qformer(features, output_attentions=output_attentions)

    def _read(
        self, hidden: Tensor, memory: Tensor, *, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        if len(memory) != len(hidden):
            raise ValueError(f"{len(hidden)} rows of text with {len(memory)} images")
        read, weights = self.qformer.read(
            hidden.to(self.qformer.dtype), memory, output_attentions=output_attentions
        )
        return read.to(hidden.dtype), weights
