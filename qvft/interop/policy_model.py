"""BLIP-2 as trl's trainers call it: hidden states, logits and samples of rows with their images.

`base_model` of transformers' class is the model itself (its prefix "blip" names no attribute), so
trl 1.15 and later, which ask it for hidden states, fail. Shape letters: B rows, L row length,
T new tokens, D decoder width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast

from qvft.models.blip2 import generate_after
from qvft.models.forward_stages import decode_hidden, embed_rows, encode_images, logits_of


class Blip2Policy(Blip2ForConditionalGeneration):
    """`Blip2ForConditionalGeneration` with one image per row, computed by qvft's stages.

    Weights, names and configuration are those of its base class; a loaded model becomes one by
    assigning `__class__`.

    Attributes:
        source: the run or model that it was made from, for model cards.
        write_weights: writes an adapter folder.
    """

    source: str = ""
    write_weights: Callable[[str], None] | None = None

    def train(self, mode: bool = True) -> Blip2Policy:
        """As in its base class; ends what `name_as_message` began."""
        self.config._name_or_path = self.source
        super().train(mode)
        return self

    def name_as_message(self, source: str) -> None:
        """Replaces the configuration's name by a message, until training begins.

        Where a trainer of trl is not given a reference or a processor, its constructor loads a
        model of that name. It would be another one, so it has to fail.
        """
        self.source = source
        self.config._name_or_path = (
            f"{source} (give the trainer ref_model=policy.reference and "
            "processing_class=policy.processor; GRPO and RLOO beta=0.0 and policy.add_reference)"
        )

    @property
    def base_model(self) -> Any:
        """Computes the input of the language-model head; called as a backbone."""
        return self.backbone

    def backbone(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, **_: Any
    ) -> BaseModelOutput:
        """Hidden states (B, L, D) of rows (B, L), padded on either side, with their images.

        Raises:
            QvftError: a row does not have one image token per query.
        """
        embeds = self._embedded(input_ids, pixel_values)
        positions = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        hidden = decode_hidden(self, embeds, attention_mask, position_ids=positions)
        return BaseModelOutput(last_hidden_state=hidden)

    def _embedded(self, input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        images = encode_images(self, pixel_values.to(self.vision_model.dtype))
        index = torch.arange(len(images), device=images.device)
        return embed_rows(self, {"input_ids": input_ids}, images=images, image_index=index)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **further: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, L, V), those of the last `logits_to_keep` positions if above 0; loss where
        labels (B, L), which the loss function shifts, are not -100.
        """
        hidden: Any = self.backbone(input_ids, attention_mask, pixel_values).last_hidden_state
        logits = logits_of(self, hidden[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=logits.shape[-1],
                num_items_in_batch=further.get("num_items_in_batch"),
            )
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor,
        generation_config: GenerationConfig | None = None,
        **settings: Any,
    ) -> Tensor:
        """Rows (B, L), padded on the left, with the new tokens behind them: (B, L + T)."""
        written = generate_after(
            self,
            self._embedded(input_ids, pixel_values),
            attention_mask,
            generation_config=generation_config or self.generation_config,
            **settings,
        )
        return torch.cat([input_ids, written], dim=1)

    def save_pretrained(self, save_directory: Any, **_: Any) -> None:  # type: ignore[override]
        """Writes the trained weights as an adapter folder; a Trainer calls it for checkpoints."""
        assert self.write_weights is not None, "set by qvft.interop.trl.policy"
        self.write_weights(str(save_directory))
