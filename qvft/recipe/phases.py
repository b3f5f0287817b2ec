"""Training phases of a recipe, with their settings. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from qvft.errors import RecipeError
from qvft.recipe.load import resolve_phase
from qvft.recipe.schema import Phase, Recipe, Trainable
from qvft.recipe.train import Train


@dataclass(frozen=True)
class PhasePlan:
    """A phase with the sections that hold in it."""

    phase: Phase
    trainable: Trainable
    train: Train


def phase_plans(recipe: Recipe) -> list[PhasePlan]:
    """The recipe's phases; one called `train` if it has none.

    Raises:
        RecipeError: one phase has LoRA on the decoder and another trains it in full, or two have
            different LoRA settings: the layers are added once.
    """
    phases = recipe.phases or [Phase(name="train")]
    plans = [PhasePlan(phase, *resolve_phase(recipe, phase)) for phase in phases]
    modes = {plan.trainable.decoder for plan in plans}
    loras = [plan.trainable.lora for plan in plans if plan.trainable.decoder == "lora"]
    if {"lora", "full"} <= modes or any(lora != loras[0] for lora in loras):
        raise RecipeError(
            "phases have different LoRA settings, but the layers are added once", where="phases"
        )
    return plans
