"""Objectives beside the built-in ones: the open table of `objectives.custom`.

`lm`, `itc`, `itm` and `itg` share one pass of ViT and Q-Former and are computed together in
`alignment.py`; an objective here gets what that pass has made. An objective of another package is
named by where it is defined (`objectives: {my_package.my_loss: 0.5}`), or added with
`register_objective`; one in this package is a file with its row, and a line of `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.data.collate import IGNORED
from qvft.data.rows import Row
from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.training.objectives.alignment_losses import OBJECTIVES as ALIGNMENT
from qvft.training.objectives.alignment_losses import LossSum

WHERE = "objectives.custom"
BUILT_IN = ("lm", *ALIGNMENT)
NumberedRows = Sequence[tuple[int, Row]]


class CustomLoss(nn.Module):
    """A training loss; weights of its own are trained with `train.lr.heads` and saved.

    Every process calls it in every step, so that each of its weights must be part of each result.
    """

    def forward(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, Tensor],
        *,
        features: Tensor,
        states: Tensor,
    ) -> LossSum:
        """The loss of a batch, added up over the items that it counts.

        Args:
            model: with its LoRA layers; `language_prefix`, `stages.embed_rows` and
                `stages.decode_hidden` run its decoder.
            batch: `image_index` (B,), `input_ids`, `attention_mask`, `labels` (B, L), the packing
                where rows are packed, and what `collate` has added.
            features: (I, P, width) ViT features of the batch's images.
            states: (I, Q, D) what the Q-Former makes of them.
        """
        raise NotImplementedError

    def count_items(self, batch: Mapping[str, Tensor]) -> int:
        """The items of a batch before its forward pass, the `count` of its loss.

        The sum over a step is divided once by the items of all processes and accumulated batches.
        Here: rows with a target (those that fill a last batch have none).
        """
        return int((batch["labels"] != IGNORED).any(dim=1).sum())


@dataclass(frozen=True)
class Objective:
    """A row of the table.

    Attributes:
        name: in the table and as `loss_NAME` in metrics.jsonl; without dots.
        build: its loss for a model of family blip2, before training.
        collate: further tensors of a batch, of its numbered rows; their names must be new ones.
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


OBJECTIVES: dict[str, Objective] = {}


def register_objective(objective: Objective) -> Objective:
    """Adds an objective that `objectives.custom` can then name; returns it.

    Raises:
        ValueError: the name is taken.
    """
    if OBJECTIVES.get(objective.name, objective) is not objective:
        raise ValueError(f"an objective is called {objective.name!r} already")
    OBJECTIVES[objective.name] = objective
    return objective


def custom_objectives(
    weights: Mapping[str, float], base: BaseCheckpoint
) -> dict[str, tuple[Objective, float]]:
    """The objectives that a recipe names, with their weights, by their own names.

    Raises:
        RecipeError: there is none of a name, two have one name, or the model is of another family.
    """
    found: dict[str, tuple[Objective, float]] = {}
    for given, weight in weights.items():
        if base.family.name != "blip2":
            raise RecipeError(
                f"{given} with family {base.family.name}", where=WHERE, expected="family blip2"
            )
        objective = _find(given)
        if objective.name in found:
            raise RecipeError(f'a second objective called "{objective.name}"', where=WHERE)
        found[objective.name] = objective, weight
    return found


def _find(name: str) -> Objective:
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if is_dotted(name):
        return import_dotted(name, Objective, where=WHERE)
    known = ", ".join([*OBJECTIVES, "package.module.name of your own"])
    raise RecipeError(f'"{name}"', where=WHERE, expected=known)


class CustomCollator:
    """Adds to a batch what custom objectives want of its rows."""

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
