"""Builds a phase's objective and collator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from torch import nn

from qvft.adapters.checkpoint import Alignment
from qvft.data.collate import Collator
from qvft.data.packing import Packer
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.recipe.preference import Preference
from qvft.setup.model import Loaded
from qvft.setup.packer import packer_for
from qvft.training.objectives.alignment import AlignmentCollator, AlignmentObjective
from qvft.training.objectives.custom import CustomCollator, CustomLoss
from qvft.training.objectives.custom import Objective as CustomObjective
from qvft.training.objectives.language import LanguageModelling
from qvft.training.objectives.preference import PreferenceObjective
from qvft.training.objectives.preference_collator import PreferenceCollator
from qvft.training.objectives.preference_losses import LossSettings

Collate = Callable[[Sequence[tuple[int, Row]]], Any]
"""Collator: numbered rows to a batch."""


def objective_of(
    loaded: Loaded,
    branch: Alignment | None,
    rows: Sequence[Row],
    *,
    weights: Mapping[str, float],
    packing: bool,
    seed: int,
    losses: Mapping[str, CustomLoss],
    custom: Sequence[CustomObjective],
) -> tuple[nn.Module, Collate]:
    """Objective of a phase, and its collator."""
    collator = collator_of(loaded, packing=packing)
    if branch is None and not losses:
        return LanguageModelling(loaded.model), collator
    heads = branch.heads if branch is not None else None
    module = AlignmentObjective(loaded.blip2, heads, weights=weights, seed=seed, custom=losses)
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
    return module, CustomCollator(collate, custom) if custom else collate


def preference_of(
    loaded: Loaded, preference: Preference, *, packing: bool
) -> tuple[PreferenceObjective, PreferenceCollator]:
    """Objective of a preference phase, and its collator without reference log-probabilities."""
    settings = preference.model_dump(include={field.name for field in fields(LossSettings)})
    module = PreferenceObjective(
        loaded.model,
        weights=preference.weights,
        settings=LossSettings(**settings),
        ld_alpha=preference.ld_alpha,
    )
    return module, PreferenceCollator(collator_of(loaded, packing=packing))


def collator_of(loaded: Loaded, *, packing: bool) -> Collator:
    """The model's collator, with or without packing."""
    collator = loaded.collator
    return replace(collator, packer=packer_of(loaded.base)) if packing else collator


def packer_of(base: BaseCheckpoint) -> Packer:
    """Packing settings for training a base model, of whose images rows may share the prefix."""
    return packer_for(base.config, shares=base.family.shares_prefix(base.config))
