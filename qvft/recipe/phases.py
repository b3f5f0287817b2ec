"""The phases of a recipe, each with its settings. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from qvft.errors import RecipeError
from qvft.recipe.load import resolve_phase
from qvft.recipe.schema import Phase, Recipe, Tune
from qvft.recipe.train import Train


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


def require_texts(recipe: Recipe, phase: Phase, train: Train) -> None:
    """Raises RecipeError where a phase has no texts whose tokens could be counted, or learns where
    things stand in an image of which a view would show a part.
    """
    if phase.objective == "language":
        return
    if train.batch_tokens is not None:
        raise RecipeError(
            "batch_tokens, where images alone are trained on",
            where=f"phases.{phase.name}.train",
            expected="batch_size",
            do="set batch_tokens: null in this phase",
        )
    if recipe.data.views:
        raise RecipeError(
            f"{recipe.data.views}, with a phase that learns what stands at which place",
            where="data.views",
            expected=f"0 with phases.{phase.name}.objective={phase.objective}",
            do="train that phase in a recipe of its own",
        )
