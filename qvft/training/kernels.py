"""What the phases of a recipe ask of a machine."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.flex import require_flex
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.setup.model import device
from qvft.training.compiling import require_compiler


def require_kernels(recipe: Recipe, base: BaseCheckpoint, plans: Sequence[PhasePlan]) -> None:
    """Checks that what the recipe would compile can be compiled here.

    Raises:
        RecipeError: it cannot.
    """
    if recipe.model.attention == "flex":
        require_flex(base.config, device())
    if any(plan.train.compile for plan in plans):
        require_compiler(device())
