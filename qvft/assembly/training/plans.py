"""The phases of a recipe, each with its settings, and what they ask of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvft.assembly.model import device
from qvft.assembly.training.batches import require_texts
from qvft.errors import RecipeError
from qvft.models.base import Base
from qvft.models.flex import require_flex
from qvft.recipe.load import resolve_phase
from qvft.recipe.schema import Phase, Recipe, Tune
from qvft.recipe.train import Train
from qvft.training.compiling import require_compiler


@dataclass(frozen=True)
class PhasePlan:
    """A phase with the sections that hold in it."""

    phase: Phase
    tune: Tune
    train: Train


def phase_plans(recipe: Recipe) -> list[PhasePlan]:
    """The recipe's phases; one called `train` where it names none.

    Raises:
        RecipeError: one phase has LoRA on the decoder and another trains it in full, or two have
            different LoRA settings: the layers are made once. Or one counts tokens of no text.
    """
    phases = recipe.phases or [Phase(name="train")]
    plans = [PhasePlan(phase, *resolve_phase(recipe, phase)) for phase in phases]
    for plan in plans:
        require_texts(recipe, plan.phase, plan.train)
    modes = {plan.tune.decoder for plan in plans}
    loras = [plan.tune.lora for plan in plans if plan.tune.decoder == "lora"]
    if {"lora", "full"} <= modes or any(lora != loras[0] for lora in loras):
        raise RecipeError(
            "phases disagree on the decoder's LoRA layers, which are made once", where="phases"
        )
    return plans


def require_shardable(recipe: Recipe) -> None:
    """Checks that weights can be cut among processes.

    Raises:
        RecipeError: phases learn by other objectives.
    """
    objectives = {phase.objective for phase in recipe.phases}
    if len(objectives) > 1:
        raise RecipeError(
            f"{' and '.join(sorted(objectives))} under FSDP",
            where="phases",
            expected="one objective: weights are cut once, within the module that learns it",
            do="use DDP (recipes/accelerate/ddp.yaml), or a run for each",
        )


def require_kernels(recipe: Recipe, base: Base, plans: Sequence[PhasePlan]) -> None:
    """Checks that what the recipe would compile can be compiled here.

    Raises:
        RecipeError: it cannot.
    """
    if recipe.model.attention == "flex":
        require_flex(base.config, device())
    if any(plan.train.compile for plan in plans):
        require_compiler(device())
