"""Table of training objectives that `objectives.custom` can name.

An objective of another package is named by where it is defined
(`objectives: {my_package.my_loss: 0.5}`), or added with `register_objective`; one in this package
is a file with its row, and a line of `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Mapping

from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.training.objectives.custom import WHERE, Objective

OBJECTIVES: dict[str, Objective] = {}


def register_objective(objective: Objective) -> Objective:
    """Adds an objective for `objectives.custom`; returns it. Raises ValueError for a taken name."""
    if OBJECTIVES.get(objective.name, objective) is not objective:
        raise ValueError(f"an objective is called {objective.name!r} already")
    OBJECTIVES[objective.name] = objective
    return objective


def custom_objectives(
    weights: Mapping[str, float], base: BaseCheckpoint
) -> dict[str, tuple[Objective, float]]:
    """Custom objectives of a recipe with their weights, by name.

    Raises:
        RecipeError: there is none of a name, two have one name, or the model is of another family.
    """
    found: dict[str, tuple[Objective, float]] = {}
    for given, weight in weights.items():
        if base.family.name != "blip2":
            raise RecipeError(
                f"{given} with family {base.family.name}", where=WHERE, expected="family blip2"
            )
        objective = _find(given)
        if objective.name in found:
            raise RecipeError(f'a second objective called "{objective.name}"', where=WHERE)
        found[objective.name] = objective, weight
    return found


def _find(name: str) -> Objective:
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    if is_dotted(name):
        return import_dotted(name, Objective, where=WHERE)
    known = ", ".join([*OBJECTIVES, "package.module.name of your own"])
    raise RecipeError(f'"{name}"', where=WHERE, expected=known)
