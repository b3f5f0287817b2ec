"""Language modelling loss: cross-entropy of the supervised tokens' logits, as (sum, count).

Shape letters: I images, B rows, L row length, N supervised positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from qvft.models.forward_stages import encode_features, encode_vision
from qvft.models.packed import PACKED
from qvft.models.supervised_tokens import SupervisedTokens, supervised_tokens

OF_PROMPTS = ("encoder_input_ids", "encoder_attention_mask", "encoder_index", "encoder_rows")
OF_QUESTIONS = ("qformer_input_ids", "qformer_attention_mask", "qformer_rows")
OF_ROWS = (*OF_QUESTIONS, *PACKED, *OF_PROMPTS)
"""Optional tensors of a batch, besides the named arguments of `LanguageModelling.forward`."""


class Objective(nn.Module):
    """Wraps the whole model in one module whose `forward` computes the losses, for DDP."""

    accepts_loss_kwargs = True
    rows_are = "texts"  # what messages call the rows of a batch

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        vision = model.get_submodule("vision_model")
        if not any(parameter.requires_grad for parameter in vision.parameters()):
            # Not in DDP's broadcast: every process has loaded or unloaded it.
            kept = {id(tensor) for tensor in (*vision.parameters(), *vision.buffers())}
            named = (*self.named_parameters(), *self.named_buffers())
            names = [name for name, tensor in named if id(tensor) in kept]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)

    def train(self, mode: bool = True) -> Objective:
        """Sets training mode, except for frozen parts, which stay in evaluation mode."""
        super().train(mode)
        for name in ("vision_model", "qformer"):
            part = self.model.get_submodule(name)
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self


class LanguageModelling(Objective):
    """Next-token cross-entropy of the supervised tokens given image and prompt."""

    adds_over_rows = True  # a batch's loss sums are the sums of its parts

    def forward(
        self,
        *,
        image_index: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        **further: Tensor,
    ) -> dict[str, Tensor]:
        """Loss of a batch.

        Steps: encode each image once, insert its prefix into its rows (of an encoder-decoder: into
        its prompts, and encode each once), run the decoder (packed or padded), compute logits at
        the N supervised positions only, sum their cross-entropy.

        Args:
            image_index: (B,) image of each row.
            input_ids, attention_mask, labels: (B, L); labels are -100 at positions without loss.
            pixel_values: (I, 3, height, width) normalised; or
            features: (I, P, W) ViT outputs.
            further: further inputs of `forward_stages.embed_rows`, and the packing from
                `data.packing.packed`, see `OF_ROWS`.

        Raises:
            TypeError: `further` holds anything else.

        Returns:
            `loss_sum` (), at least float32, `count` () long; per row (B,): `row_loss` mean loss,
            `row_count` supervised tokens, `exact` bool: greedy decoding would give this target,
            since each token is the most likely one given those before it.
        """
        unknown = sorted(further.keys() - set(OF_ROWS))
        if unknown:
            raise TypeError(f"{unknown[0]} is not an input of the language loss")
        found = supervised_tokens(
            self.model,
            {"input_ids": input_ids, **further},
            images=encode_features(self.model, vision_features(self.model, pixel_values, features)),
            image_index=image_index,
            attention_mask=attention_mask,
            labels=labels,
        )
        return language_outputs(found)


def vision_features(
    model: PreTrainedModel, pixel_values: Tensor | None, features: Tensor | None
) -> Tensor:
    """ViT features (I, P, W) of a batch: computed from its images, or given."""
    if features is not None:
        return features
    assert pixel_values is not None, "a batch has images or their features"
    return encode_vision(model, pixel_values)


def language_outputs(tokens: SupervisedTokens) -> dict[str, Tensor]:
    """What `LanguageModelling.forward` returns."""
    losses = tokens.losses.detach()
    per_row = tokens.count.clamp(min=1)
    row_loss = losses.new_zeros(len(per_row)).index_add(0, tokens.row, losses)
    errors = torch.zeros_like(per_row).index_add(0, tokens.row, (~tokens.hits).long())
    return {
        "loss_sum": tokens.losses.sum(),
        "count": tokens.count.sum(),
        "row_loss": row_loss / per_row,
        "row_count": per_row,
        "exact": errors == 0,
    }


def tokens_of(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    *,
    temperature: float = 1.0,
    never: Sequence[int] = (),
) -> SupervisedTokens:
    """`supervised_tokens` of a batch with the inputs of `LanguageModelling.forward`; others that it
    has are not read.
    """
    seen = vision_features(model, batch.get("pixel_values"), batch.get("features"))
    return supervised_tokens(
        model,
        {name: value for name, value in batch.items() if name in ("input_ids", *OF_ROWS)},
        images=encode_features(model, seen),
        image_index=batch["image_index"],
        attention_mask=batch["attention_mask"],
        labels=batch["labels"],
        temperature=temperature,
        never=never,
    )
