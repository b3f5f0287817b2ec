"""The recipe's `preference` section: one name or several, weights, what a phase makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import idle_keys, parse_recipe
from qvft.recipe.preference import Preference
from qvft.recipe.recipe_lock import recipe_hash

PHASES = [{"name": "a"}, {"name": "b", "objective": "preference"}]
FROZEN = {
    part: "frozen"
    for part in ("vision", "qformer", "query_tokens", "language_projection", "decoder")
}


def recipe_of(**sections: Any) -> Any:
    return parse_recipe({"name": "x", "model": {"id": "m"}, "phases": PHASES, **sections})


def test_one_name_is_a_list_of_one_as_in_trl() -> None:
    assert Preference(loss_type="hinge").loss_type == ["hinge"]  # type: ignore[arg-type]


def test_losses_weigh_one_each_and_those_of_weight_0_are_left_out() -> None:
    names = ["sigmoid", "sft"]
    assert Preference(loss_type=names).weights == {"sigmoid": 1.0, "sft": 1.0}
    assert Preference(loss_type=names, loss_weights=[2.0, 0.0]).weights == {"sigmoid": 2.0}


@pytest.mark.parametrize(
    ("key", "value"), [("beta", 0), ("ld_alpha", 1.5), ("label_smoothing", 1), ("loss_type", [])]
)
def test_a_value_out_of_range_is_refused_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=rf"preference\.{key}"):
        recipe_of(preference={key: value})


def test_the_section_has_no_effect_without_such_a_phase() -> None:
    idle = idle_keys(recipe_of(phases=[{"name": "a"}]))
    assert idle["preference"] == "no phase has objective: preference"
    assert "preference" not in idle_keys(recipe_of())
    only = idle_keys(recipe_of(phases=PHASES[1:]))
    assert only["objectives"] == "no phase has objective: language"


def test_heads_alone_are_nothing_to_train_from_pairs() -> None:
    with pytest.raises(RecipeError, match=r"phases\.1\.trainable: .* all frozen"):
        recipe_of(trainable=FROZEN, objectives={"itc": 1.0})


def test_it_shapes_the_weights() -> None:
    assert recipe_hash(recipe_of()) != recipe_hash(recipe_of(preference={"beta": 0.2}))
