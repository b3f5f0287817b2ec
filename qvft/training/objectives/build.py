"""Builds a phase's objective and collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from qvft.data.packing import Packer
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import decoder_of, is_encoder_decoder
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.setup.alignment_heads import TextBranch
from qvft.setup.model import Loaded
from qvft.training.objectives.alignment import LANGUAGE, AlignmentCollator, AlignmentObjective
from qvft.training.objectives.custom import CustomCollator, CustomLoss
from qvft.training.objectives.language import LanguageModelling
from qvft.training.objectives.objective_table import custom_objectives

Collate = Callable[[Sequence[tuple[int, Row]]], Any]
"""Collator: numbered rows to a batch."""


def objective_of(
    recipe: Recipe,
    loaded: Loaded,
    branch: TextBranch | None,
    plan: PhasePlan,
    rows: Sequence[Row],
    *,
    custom: Mapping[str, CustomLoss] | None = None,
) -> tuple[nn.Module, Collate]:
    """Objective of a phase, and its collator.

    Args:
        branch: alignment heads, if the recipe has any.
        custom: losses of the recipe's custom objectives, by name.

    Raises:
        RecipeError: alignment objectives without captions in the data.
    """
    collator = loaded.collator
    if plan.train.packing:
        collator = replace(collator, packer=packer_of(loaded.base))
    if branch is None and not custom:
        return LanguageModelling(loaded.model), collator
    weights = {LANGUAGE: recipe.objectives.lm} if recipe.objectives.lm > 0 else {}
    added = custom_objectives(recipe.objectives.further, loaded.base)
    module = AlignmentObjective(
        loaded.blip2,
        branch.heads if branch is not None else None,
        weights={
            **weights,
            **recipe.objectives.alignment,
            **{name: weight for name, (_, weight) in added.items()},
        },
        seed=recipe.run.seed,
        custom=custom,
    )
    collate: Collate = collator
    if branch is not None:
        _require_captions(rows)
        collate = AlignmentCollator(
            collator, branch.tokenizer, max_text_tokens=branch.saved.max_text_tokens
        )
    objectives = [objective for objective, _ in added.values()]
    return module, CustomCollator(collate, objectives) if objectives else collate


def _require_captions(rows: Sequence[Row]) -> None:
    if not any(row.kind == "caption" for row in rows):
        raise RecipeError(
            "holds no caption",
            where="data.train",
            expected="captions, which itc, itm and itg align with their images",
            do="leave lm alone in objectives, or add captions",
        )


def packer_of(base: BaseCheckpoint) -> Packer:
    """Packing settings for a base model.

    Attention to masked positions is wasted: K / (6 D) of the work of a decoder of width D per token
    in a packed row of length K. K = D / 5, 512 for OPT-2.7B, makes it a thirtieth. GPT-Neo has its
    own mask, which no packed row may exceed, and windows in it, in which rows stay whole. In an
    encoder-decoder, the rows of a prompt are packed.
    """
    text = base.config.text_config
    budget = max(1, text.hidden_size // 5)
    shares = base.family.shares_prefix(base.config) and decoder_of(base.config).local_window is None
    if not shares:
        budget = min(budget, getattr(text, "max_position_embeddings", budget))
    return Packer(shares=shares, budget=budget, apart=is_encoder_decoder(base.config))
