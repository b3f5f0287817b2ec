"""Training phases of a recipe, with their settings. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qvft.errors import RecipeError
from qvft.recipe.load import resolve_phase
from qvft.recipe.schema import Phase, Recipe
from qvft.recipe.train import Train
from qvft.recipe.trainable import LORA_PARTS, Trainable


@dataclass(frozen=True)
class PhasePlan:
    """A phase with the sections that hold in it."""

    phase: Phase
    trainable: Trainable
    train: Train


def phase_plans(recipe: Recipe) -> list[PhasePlan]:
    """The recipe's phases; one called `train` if it has none.

    Raises:
        RecipeError: one phase has LoRA on a component and another trains it in full, or two have
            different LoRA settings: the layers are added once.
    """
    phases = recipe.phases or [Phase(name="train")]
    plans = [PhasePlan(phase, *resolve_phase(recipe, phase)) for phase in phases]
    settings = [plan.trainable.lora for plan in plans if plan.trainable.lora_parts]
    differing = [
        part
        for part in LORA_PARTS
        if {"lora", "full"} <= {getattr(plan.trainable, part) for plan in plans}
    ]
    if any(lora != settings[0] for lora in settings):
        differing.append("lora")
    if differing:
        raise RecipeError(
            "phases have different LoRA settings, but the layers are added once: "
            f"trainable.{differing[0]} differs",
            where="phases",
        )
    return plans


def lora_of_phases(plans: Sequence[PhasePlan]) -> tuple[Trainable, tuple[str, ...]] | None:
    """The first phase's section with LoRA, whose settings hold for all, and the components with
    LoRA in any phase; None without LoRA.
    """
    settings = [plan.trainable for plan in plans if plan.trainable.lora_parts]
    parts = {part for plan in plans for part in plan.trainable.lora_parts}
    if not settings:
        return None
    return settings[0], tuple(part for part in LORA_PARTS if part in parts)


def require_trainable_decoder(trainable: Trainable, *, quantized: bool) -> None:
    """Raises RecipeError if a quantized decoder is trained in full."""
    if trainable.decoder == "full" and quantized:
        raise RecipeError(
            "full with a quantised decoder",
            where="trainable.decoder",
            expected="lora or frozen",
            do="or set model.quantization.load_in_4bit=false",
        )
