"""Learning rates by the size of the base."""

from __future__ import annotations

from typing import Any

from qvft.checking.check_memory import known_base
from qvft.new_project.fitting_base import OPT
from qvft.recipe.load import parse_recipe
from qvft.recipe.phases import phase_plans
from qvft.setup.learning_rates import with_rates


def rates(train: dict[str, Any], phases: list[dict[str, Any]] | None = None) -> list[dict]:
    """The rates of each phase of a recipe for OPT-2.7B."""
    recipe = parse_recipe(
        {"name": "x", "model": {"id": OPT}, "train": train, "phases": phases or []}
    )
    base = known_base(recipe)
    assert base is not None
    return [plan.train.rates for plan in phase_plans(with_rates(recipe, base))]


def test_blip2_gets_the_published_rates() -> None:
    (found,) = rates({})
    assert (found["qformer"], found["language_projection"], found["adapters"]) == (1e-5, 1e-5, 2e-4)


def test_rates_that_are_set_stay() -> None:
    (found,) = rates({"learning_rate": {"qformer": 3e-5}})
    assert (found["qformer"], found["adapters"]) == (3e-5, 1e-4)  # the key's own default


def test_phases_that_all_set_theirs_keep_the_defaults_for_the_rest() -> None:
    one = {"name": "a", "train": {"learning_rate": {"qformer": 3e-5}}}
    assert rates({}, [one])[0]["adapters"] == 1e-4
    found = rates({}, [one, {"name": "b"}])
    assert [phase["adapters"] for phase in found] == [2e-4, 2e-4]
