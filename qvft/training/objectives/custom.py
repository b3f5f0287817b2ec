"""`Objective`: interface of custom training losses.

`lm`, `itc`, `itm` and `itg` share one pass of ViT and Q-Former and are computed together in
`alignment.py`; a custom objective gets what that pass has made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.data.collate import IGNORED
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.training.objectives.alignment_losses import OBJECTIVES as ALIGNMENT
from qvft.training.objectives.alignment_losses import LossSum

WHERE = "objectives.custom"
BUILT_IN = ("lm", *ALIGNMENT)
NumberedRows = Sequence[tuple[int, Row]]


class CustomLoss(nn.Module):
    """A custom training loss; its weights are trained with `train.learning_rate.heads` and saved.

    Every process calls it in every step, so each of its weights must take part in each result.
    """

    def forward(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, Tensor],
        *,
        features: Tensor,
        states: Tensor,
    ) -> LossSum:
        """The loss of a batch, summed over its items.

        Args:
            model: with its LoRA layers; `language_prefix`, `forward_stages.embed_rows` and
                `forward_stages.decode_hidden` run its decoder.
            batch: `image_index` (B,), `input_ids`, `attention_mask`, `labels` (B, L), the packing
                where rows are packed, and what `collate` has added.
            features: (I, P, width) ViT features of the batch's images.
            states: (I, Q, D) query outputs of the Q-Former.
        """
        raise NotImplementedError

    def count_items(self, batch: Mapping[str, Tensor]) -> int:
        """Number of items of a batch, known before its forward pass: the `count` of its loss.

        The sum over a step is divided once by the items of all processes and accumulated batches.
        Default: rows with a target (padding rows have none).
        """
        return int((batch["labels"] != IGNORED).any(dim=1).sum())


@dataclass(frozen=True)
class Objective:
    """A row of the table.

    Attributes:
        name: in the table and as `loss_NAME` in metrics.jsonl; without dots.
        build: its loss for a model of family blip2, before training.
        collate: additional tensors of a batch from its numbered rows, under new names.
    """

    name: str
    build: Callable[[PreTrainedModel], CustomLoss]
    collate: Callable[[NumberedRows], Mapping[str, Tensor]] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in BUILT_IN:
            raise ValueError(
                f"{self.name!r}: an objective's name has letters, digits and underscores, and is "
                f"none of {', '.join(BUILT_IN)}"
            )


class CustomCollator:
    """Adds the tensors of custom objectives to a batch."""

    def __init__(self, collator: Callable[[NumberedRows], Any], added: Sequence[Objective]) -> None:
        self.collator, self.added = collator, added

    def __call__(self, rows: NumberedRows) -> dict[str, Any]:
        batch = self.collator(rows)
        for objective in self.added:
            further = objective.collate(rows) if objective.collate is not None else {}
            if taken := batch.keys() & further.keys():
                raise RecipeError(
                    f"{objective.name} adds {sorted(taken)[0]}, which the batch has", where=WHERE
                )
            batch |= further
        return batch
