"""From a batch to a loss, as (sum, count), so that it is divided once and globally.

Shape letters: I images, B rows, L row length, N supervised positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from qvft.models.forward_stages import embed_rows, encode_features, encode_vision, logits_of
from qvft.models.packed import PACKED, Packing, hidden_at
from qvft.training.objectives.objective import Objective

IGNORED = -100
OF_ROWS = ("qformer_input_ids", "qformer_attention_mask", *PACKED)
"""What a batch may hold beside the arguments that `LanguageModelling.forward` names."""
LOGIT_ROWS = 512
"""Positions whose logits are held at once: with OPT's 50,304 words and what their gradient needs,
600 KB each in float32."""


class LanguageModelling(Objective):
    """Next-token loss of the supervised tokens given image and prompt.

    One module around the whole model, so that DDP sees a single `forward`.

    Args:
        model: of any family, with or without LoRA layers in it.
    """

    adds_over_rows = True  # a batch's sums are those of its parts

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

        Steps: encode each image once, put its prefix into its rows, run the decoder over them
        (packed or one by one), take logits at the N supervised positions only, sum their
        cross-entropy.

        Args:
            image_index: (B,) image of each row.
            input_ids, attention_mask, labels: (B, L); labels are -100 where nothing is learnt.
            pixel_values: (I, 3, height, width) normalised; or
            features: (I, P, W) what the ViT makes of them.
            further: what `forward_stages.embed_rows` takes of a row beside its tokens, and what
                `data.packing.packed` says of them, see `OF_ROWS`.

        Raises:
            TypeError: `further` holds anything else.

        Returns:
            `loss_sum` (), float32 at least, `count` () long; by row (B,): `row_loss` its mean loss,
            `row_count` its supervised tokens, `exact` bool: greedy decoding would write this
            target, since each of its tokens is the most likely one given those before it.
        """
        unknown = sorted(further.keys() - set(OF_ROWS))
        if unknown:
            raise TypeError(f"{unknown[0]} is nothing that the language loss takes")
        return language_loss(
            self.model,
            {"input_ids": input_ids, **further},
            images=encode_features(self.model, vision_features(self.model, pixel_values, features)),
            image_index=image_index,
            attention_mask=attention_mask,
            labels=labels,
        )


def vision_features(
    model: PreTrainedModel, pixel_values: Tensor | None, features: Tensor | None
) -> Tensor:
    """ViT features (I, P, W) of a batch, which has either its images or these themselves."""
    if features is not None:
        return features
    assert pixel_values is not None, "a batch has images or their features"
    return encode_vision(model, pixel_values)


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
        rows: as `forward_stages.embed_rows` takes them; and their packing, where they have one.
        images: (I, ...) from `forward_stages.encode_features`.
    """
    embeds = embed_rows(model, rows, images=images, image_index=image_index)
    next_labels = labels[:, 1:]
    supervised = next_labels != IGNORED
    # The last column predicts nothing; positions are asked for among all columns.
    where = torch.zeros_like(labels, dtype=torch.bool)
    where[:, :-1] = supervised
    hidden = hidden_at(
        model,
        embeds,
        attention_mask,
        where,
        Packing.of(rows),
        images=images,
        image_index=image_index,
    )
    losses, hits = token_losses(model, hidden, next_labels[supervised])
    of_row = supervised.nonzero()[:, 0]
    per_row = supervised.sum(dim=1).clamp(min=1)
    row_loss = losses.detach().new_zeros(len(labels)).index_add(0, of_row, losses.detach())
    errors = torch.zeros_like(per_row).index_add(0, of_row, (~hits).long())
    return {
        "loss_sum": losses.sum(),
        "count": supervised.sum(),
        "row_loss": row_loss / per_row,
        "row_count": per_row,
        "exact": errors == 0,
    }


def token_losses(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (N,) of each target, float32 at least; and (N,) whether it is the likeliest.

    Logits of `LOGIT_ROWS` positions are made at a time and made once more for their gradient, so
    that no tensor of all positions times the vocabulary is ever held.

    Args:
        hidden: (N, D) what the language-model head is given.
        targets: (N,) the tokens that follow.
    """
    parts = list(zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True))
    if len(parts) == 1:
        return _token_losses(model, hidden, targets)
    found = [checkpoint(_token_losses, model, *part, use_reentrant=False) for part in parts]
    losses, hits = zip(*found, strict=True)
    return torch.cat(losses), torch.cat(hits)


def _token_losses(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits_of(model, hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    hits = logits.detach().argmax(dim=-1) == targets
    return cross_entropy(logits, targets, reduction="none"), hits
