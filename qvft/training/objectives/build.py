"""Builds a phase's objective and collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from qvft.adapters.checkpoint import Alignment
from qvft.data.collate import Collator
from qvft.data.packing import Packer
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.recipe.preference import Preference
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded
from qvft.setup.packer import packer_for
from qvft.training.objectives.alignment import AlignmentCollator, AlignmentObjective
from qvft.training.objectives.custom import CustomCollator, CustomLoss
from qvft.training.objectives.language import LanguageModelling
from qvft.training.objectives.objective_table import custom_objectives
from qvft.training.objectives.preference import PreferenceCollator, PreferenceObjective

Collate = Callable[[Sequence[tuple[int, Row]]], Any]
"""Collator: numbered rows to a batch."""


def language_of(
    loaded: Loaded,
    recipe: Recipe,
    branch: Alignment | None,
    losses: Mapping[str, CustomLoss],
    rows: Sequence[Row],
    *,
    packing: bool,
) -> tuple[nn.Module, Collate]:
    """Objective of a phase that learns from texts, by the recipe's `objectives`, and its collator.

    Args:
        losses: of custom objectives, by name.
    """
    collator = collator_of(loaded, packing=packing)
    if branch is None and not losses:
        return LanguageModelling(loaded.model), collator
    objectives = recipe.objectives
    custom = custom_objectives(objectives.further, loaded.base)
    weights = {
        **({"lm": objectives.lm} if objectives.lm > 0 else {}),
        **objectives.alignment,
        **{name: weight for name, (_, weight) in custom.items()},
    }
    module = AlignmentObjective(
        loaded.blip2,
        branch.heads if branch is not None else None,
        weights=weights,
        seed=recipe.run.seed,
        custom=losses,
    )
    collate: Collate = collator
    if branch is not None:
        if not any(row.kind == "caption" for row in rows):
            raise RecipeError(
                "holds no caption",
                where="data.train",
                expected="captions, which itc, itm and itg align with their images",
                do="leave lm alone in objectives, or add captions",
            )
        collate = AlignmentCollator(
            collator, branch.tokenizer, max_text_tokens=branch.max_text_tokens
        )
    if custom:
        collate = CustomCollator(collate, [objective for objective, _ in custom.values()])
    return module, collate


def preference_of(
    loaded: Loaded, preference: Preference, *, packing: bool
) -> tuple[PreferenceObjective, PreferenceCollator]:
    """Objective of a preference phase, and its collator without reference log-probabilities."""
    collator = PreferenceCollator(collator_of(loaded, packing=packing))
    return PreferenceObjective(loaded.model, preference), collator


def collator_of(loaded: Loaded, *, packing: bool) -> Collator:
    """The model's collator, with or without packing."""
    collator = loaded.collator
    return replace(collator, packer=packer_of(loaded.base)) if packing else collator


def packer_of(base: BaseCheckpoint) -> Packer:
    """Packing settings for training a base model, of whose images rows may share the prefix."""
    return packer_for(base.config, shares=base.family.shares_prefix(base.config))
