"""QVision: a frozen CLIP, a Q-Former of its own, and a decoder whose input tokens read the image.

Shape letters: I images, B rows, L tokens, P patches, Q refined query tokens, D width, H heads,
V vocabulary.

The published parts and how they are counted here (weights tied to others count once):

    vision_model    152,064,769  whole CLIP ViT-B/32 151,277,313, linear 768 -> 1024 787,456
    qformer          66,196,480  see `qformer.py`
    language_model  355,798,016  GPT-Neo, 1024 wide, 24 blocks of 12,593,152

The whole CLIP is kept, its text tower unused, so that a CLIP checkpoint loads and leaves with all
its weights and the count is the published one. A `clip_vision_model` configuration drops the
text tower.
The published count has nothing trained in the first row, so the linear layer keeps its fresh
weights there. In the third it has 240,360,448: the top 15 blocks and the tied embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.encoder import QVisionEncoder
from qvft.models.qvision.qformer import QVisionQFormer


@dataclass
class QVisionOutput(ModelOutput):
    """What `QVisionForConditionalGeneration` returns.

    Attributes:
        loss: () mean over the supervised tokens.
        logits: (B, L, V).
        past_key_values: the decoder's cache.
        hidden_states: the decoder's.
        attentions: the decoder's own, where its attention is eager.
        text_attention: (B, H, L, Q) from each token to the refined query tokens.
        query_attentions: for each block of the Q-Former (I, H, Q, P) from query token to patch;
            only where the images were given as pixels.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    text_attention: Tensor | None = None
    query_attentions: tuple[Tensor, ...] | None = None


class QVisionForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """QVision with its language-model head: losses, generation, and the stages of both.

    `encode_images`, `embed` and `decode` are the stages of `forward`, for callers that compute
    some of them once for several rows.
    """

    config_class = QVisionConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "QVisionBlock",
        "QVisionTextReader",
        "CLIPVisionEmbeddings",
        "CLIPTextEmbeddings",
        "CLIPEncoderLayer",
        "SiglipVisionEmbeddings",
        "SiglipTextEmbeddings",
        "SiglipEncoderLayer",
        "SiglipMultiheadAttentionPoolingHead",
    ]
    _supports_sdpa = True

    def __init__(self, config: QVisionConfig) -> None:
        super().__init__(config)
        # GPT-Neo has eager attention only; asking for sdpa is meant for the vision tower then.
        text = config.text_config
        if text.model_type == "gpt_neo" and text._attn_implementation == "sdpa":
            text._attn_implementation = "eager"
        self.vision_model = QVisionEncoder(config)
        self.qformer = QVisionQFormer(config)
        self.language_model = AutoModelForCausalLM.from_config(text)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights of Q-Former and projection; tower and decoder initialise themselves."""
        super()._init_weights(module)
        if isinstance(module, QVisionQFormer):
            init.normal_(module.query_tokens, std=self.config.initializer_range)
            if module.context_token is not None:
                init.normal_(module.context_token, std=self.config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the decoder's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language-model head, from hidden states to logits."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the language-model head."""
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        """The decoder without its head."""
        return self.language_model.get_decoder()

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Refined query tokens (I, Q, D) of normalised images (I, 3, height, width)."""
        return self._encode(pixel_values, output_attentions=False)[0]

    def image_memory(self, query_states: Tensor) -> Tensor:
        """Keys and values (I, 2, H, Q, D / H) that text reads, of refined query tokens (I, Q, D).

        They depend on the image alone, so that generation computes them once.
        """
        states = query_states.to(self.qformer.dtype)
        return self.qformer.text_reader.attention.memory(states, states)

    def embed(
        self, input_ids: Tensor, query_states: Tensor, *, image_index: Tensor | None = None
    ) -> Tensor:
        """The decoder's input (B, L, D): token embeddings that have read their image.

        Args:
            input_ids: (B, L).
            query_states: (I, Q, D) from `encode_images`.
            image_index: (B,) which image each row belongs to; None: row b reads image b.

        Raises:
            ValueError: there is not one image for each row.
        """
        memory = self.image_memory(query_states)
        if image_index is not None:
            memory = memory[image_index]
        return self._embed(input_ids, memory, output_attentions=False)[0]

    def decode(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        *,
        position_ids: Tensor | None = None,
        **decoder_options: Any,
    ) -> ModelOutput:
        """The decoder's output, whose `last_hidden_state` is (B, L, D) before the head.

        Args:
            inputs_embeds: (B, L, D) from `embed`.
            attention_mask: (B, past + L) 1 at tokens, 0 at padding on either side. Positions
                count tokens only, so that padding moves nothing. None: no padding.
            position_ids: (B, L) in place of those.
            decoder_options: passed on, e.g. `past_key_values`, `use_cache`.
        """
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            counted = attention_mask.long().cumsum(dim=-1) - 1
            position_ids = counted.clamp(min=0)[:, -inputs_embeds.shape[1] :]
        return self.get_decoder()(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **decoder_options,
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        query_states: Tensor | None = None,
        image_memory: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **loss_options: Any,
    ) -> QVisionOutput:
        """Logits, and the loss where labels are given.

        Args:
            input_ids: (B, L); those after the cached ones where `past_key_values` is given.
            attention_mask, position_ids: as in `decode`.
            pixel_values: (B, 3, height, width), one image a row; or
            query_states: (B, Q, D) from `encode_images`; or
            image_memory: (B, 2, H, Q, D / H) from the method of that name.
            inputs_embeds: (B, L, D) from `embed`, in place of `input_ids` and the image.
            labels: (B, L), -100 where nothing is learnt; shifted here.
            output_attentions: asks for `text_attention` and `query_attentions`, and for the
                decoder's own where its attention is eager.
            logits_to_keep: last positions to give logits of, or their indices; 0: all.
            loss_options: for the loss, e.g. `num_items_in_batch`.

        Raises:
            ValueError: not one of ids and embeddings, ids without exactly one form of their
                image, or another number of images than rows.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected either input_ids or inputs_embeds")
        output_attentions = bool(output_attentions)
        text_attention, query_attentions = None, ()
        if inputs_embeds is None:
            if sum(given is not None for given in (pixel_values, query_states, image_memory)) != 1:
                raise ValueError(
                    "input_ids need their images in one form: pixel_values, query_states or "
                    "image_memory"
                )
            if pixel_values is not None:
                query_states, query_attentions = self._encode(
                    pixel_values, output_attentions=output_attentions
                )
            if query_states is not None:
                image_memory = self.image_memory(query_states)
            inputs_embeds, text_attention = self._embed(
                input_ids, image_memory, output_attentions=output_attentions
            )
        eager = self.get_decoder().config._attn_implementation == "eager"
        decoded = self.decode(
            inputs_embeds,
            attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions and eager,
            output_hidden_states=output_hidden_states,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.get_output_embeddings()(decoded.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=logits.shape[-1], **loss_options
            )
        return QVisionOutput(
            loss=loss,
            logits=logits,
            past_key_values=decoded.past_key_values,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
            text_attention=text_attention,
            query_attentions=query_attentions or None,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        *,
        pixel_values: Tensor | None = None,
        query_states: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Tokens (B, L + new) that follow prompts, each with its image; see `GenerationMixin`.

        Without a prompt every row begins with the bos token. The images are encoded once, not at
        every token and not for every beam.

        Args:
            inputs: (B, L) prompts, padded on the left; also as `input_ids`.
            pixel_values: (B, 3, height, width); or
            query_states: (B, Q, D) from `encode_images`.

        Raises:
            ValueError: not exactly one of `pixel_values` and `query_states`.
        """
        if (pixel_values is None) == (query_states is None):
            raise ValueError("generate needs the images as either pixel_values or query_states")
        states = self.encode_images(pixel_values) if query_states is None else query_states
        return super().generate(
            inputs, generation_config, image_memory=self.image_memory(states), **options
        )

    def _encode(
        self, pixel_values: Tensor, *, output_attentions: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = self.vision_model(pixel_values).to(self.qformer.dtype)
        return self.qformer(features, output_attentions=output_attentions)

    def _embed(
        self, input_ids: Tensor, memory: Tensor, *, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        if len(memory) != len(input_ids):
            raise ValueError(f"{len(input_ids)} rows of text with {len(memory)} images")
        tokens = self.get_input_embeddings()(input_ids)
        read, weights = self.qformer.text_reader(
            tokens.to(self.qformer.dtype), memory, output_attentions=output_attentions
        )
        return read.to(tokens.dtype), weights
