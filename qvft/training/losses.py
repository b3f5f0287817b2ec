"""From a batch to a loss, as (sum, count), so that it is divided once and globally.

Shape letters: I images, B rows, L row length, N supervised positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from qvft.models.stages import decode_hidden, embed_rows, encode_images, logits_at

IGNORED = -100


class LanguageModelling(nn.Module):
    """Next-token loss of the supervised tokens given image and prompt.

    One module around the whole model, so that DDP sees a single `forward`.

    Args:
        model: of any family, with or without LoRA layers in it.
    """

    accepts_loss_kwargs = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> LanguageModelling:
        """Training mode, except for parts that are frozen: they stay as evaluation finds them."""
        super().train(mode)
        rest_frozen_parts(self.model)
        return self

    def forward(
        self,
        *,
        pixel_values: Tensor,
        image_index: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        **further: Tensor,
    ) -> dict[str, Tensor]:
        """Loss of a batch.

        Steps: encode each image once, put its prefix into its rows, run the decoder, take logits
        at the N supervised positions only, sum their cross-entropy in float32.

        Args:
            pixel_values: (I, 3, height, width) normalised.
            image_index: (B,) image of each row.
            input_ids, attention_mask, labels: (B, L); labels are -100 where nothing is learnt.
            further: what `stages.embed_rows` takes of a row beside its tokens.

        Returns:
            `loss_sum` () float32, `count` () long; by row (B,): `row_loss` its mean loss,
            `row_count` its supervised tokens, `exact` bool: greedy decoding would write this
            target, since each of its tokens is the most likely one given those before it.
        """
        return language_loss(
            self.model,
            {"input_ids": input_ids, **further},
            images=encode_images(self.model, pixel_values),
            image_index=image_index,
            attention_mask=attention_mask,
            labels=labels,
        )


def rest_frozen_parts(model: PreTrainedModel) -> None:
    """Puts a ViT or Q-Former of which nothing is trained into evaluation mode."""
    for part in (model.vision_model, model.qformer):
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def language_loss(
    model: PreTrainedModel,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    image_index: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
) -> dict[str, Tensor]:
    """What `LanguageModelling.forward` returns, of images that are encoded already.

    Args:
        rows: as `stages.embed_rows` takes them.
        images: (I, ...) from `stages.encode_images`.
    """
    embeds = embed_rows(model, rows, images=images, image_index=image_index)
    hidden = decode_hidden(model, embeds, attention_mask)
    next_labels = labels[:, 1:]
    supervised = next_labels != IGNORED
    logits = logits_at(model, hidden[:, :-1], supervised).float()
    targets = next_labels[supervised]
    losses = cross_entropy(logits, targets, reduction="none")
    of_row = supervised.nonzero()[:, 0]
    per_row = supervised.sum(dim=1).clamp(min=1)
    row_loss = losses.detach().new_zeros(len(labels)).index_add(0, of_row, losses.detach())
    wrong = (logits.detach().argmax(dim=-1) != targets).long()
    errors = torch.zeros_like(per_row).index_add(0, of_row, wrong)
    return {
        "loss_sum": losses.sum(),
        "count": supervised.sum(),
        "row_loss": row_loss / per_row,
        "row_count": per_row,
        "exact": errors == 0,
    }
