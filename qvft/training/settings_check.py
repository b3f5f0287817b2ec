"""Checks settings for transformers, peft and bitsandbytes before anything long begins."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.inference.generation_trial import tried_fields
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.training.rehearsal import require_trainable


def require_settings(recipe: Recipe, base: BaseCheckpoint, plans: Sequence[PhasePlan]) -> None:
    """Tries training and decoding on a tiny model if a recipe sets more than qvft's own keys.

    Raises:
        RecipeError: a library refuses a setting; the message names its key.
    """
    tried_fields(recipe, base)
    for plan in plans:
        where = f"phases.{plan.phase.name}.train" if plan.phase.train else "train"
        require_trainable(plan.train.model_dump(), workers=recipe.data.num_workers, where=where)
