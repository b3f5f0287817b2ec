"""The phases of a recipe, each with its settings. Nothing here imports torch."""

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
    """The recipe's phases; one called `train` where it names none.

    Raises:
        RecipeError: one phase has LoRA on the decoder and another trains it in full, or two have
            different LoRA settings: the layers are made once. Or one counts tokens of no text.
    """
    phases = recipe.phases or [Phase(name="train")]
    plans = [PhasePlan(phase, *resolve_phase(recipe, phase)) for phase in phases]
    for plan in plans:
        require_texts(recipe, plan.phase, plan.train)
    modes = {plan.trainable.decoder for plan in plans}
    loras = [plan.trainable.lora for plan in plans if plan.trainable.decoder == "lora"]
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
            expected="per_device_train_batch_size",
            do="set batch_tokens: null in this phase",
        )
    if recipe.data.augmentations_per_image:
        raise RecipeError(
            f"{recipe.data.augmentations_per_image}, with a phase that learns what stands where",
            where="data.augmentations_per_image",
            expected=f"0 with phases.{phase.name}.objective={phase.objective}",
            do="train that phase in a recipe of its own",
        )
