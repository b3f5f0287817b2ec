"""Summary of a recipe in a few lines."""

from __future__ import annotations

from qvft.checking.findings import RecipeFindings
from qvft.recipe.load import resolve_phase
from qvft.recipe.schema import Phase, Recipe


def recipe_findings(recipe: Recipe) -> RecipeFindings:
    """Summary of a recipe; does not import torch."""
    phases = recipe.phases or [Phase(name="train")]
    trains = [resolve_phase(recipe, phase)[1] for phase in phases]
    return RecipeFindings(
        name=recipe.name,
        model=recipe.model.id,
        run_dir=recipe.run_dir,
        quantize=recipe.model.quantization.scheme,
        phases=tuple(phase.name for phase in phases),
        rows_per_step=tuple(
            None
            if train.batch_tokens
            else train.per_device_train_batch_size * train.gradient_accumulation_steps
            for train in trains
        ),
        tokens_per_step=tuple(
            train.batch_tokens * train.gradient_accumulation_steps if train.batch_tokens else None
            for train in trains
        ),
    )
