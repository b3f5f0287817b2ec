"""From decoding settings to `GenerationConfig` fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.inference.generation_config import check_fields, generation_fields
from qvft.recipe.load import load_recipe


def fields(recipe_file: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    return generation_fields(load_recipe(recipe_file, overrides))


def test_captions_and_answers_have_settings_of_their_own(recipe_file: Path) -> None:
    found = fields(recipe_file, "eval.caption.max_new_tokens=30", "eval.answer.num_beams=2")
    assert found["caption"] == {"max_new_tokens": 30, "num_beams": 1, "do_sample": False}
    assert found["question"]["num_beams"] == 2


def test_the_length_penalty_is_passed_to_beam_search_alone(recipe_file: Path) -> None:
    """transformers warns of it where there are no beams."""
    asked = ["eval.caption.length_penalty=-1.0", "eval.answer.length_penalty=-1.0"]
    found = fields(recipe_file, *asked, "eval.answer.num_beams=5")
    assert found["question"]["length_penalty"] == -1.0
    assert "length_penalty" not in found["caption"]


def test_any_further_field_is_passed_on(recipe_file: Path) -> None:
    found = fields(recipe_file, "eval.caption.arguments={do_sample: true, top_p: 0.9}")
    assert (found["caption"]["do_sample"], found["caption"]["top_p"]) == (True, 0.9)


def test_an_unknown_field_is_told_the_nearest_one(recipe_file: Path) -> None:
    with pytest.raises(
        RecipeError, match=r'^eval\.answer\.arguments\.num_beam: .*did you mean "num_beams"'
    ):
        fields(recipe_file, "eval.answer.arguments={num_beam: 3}")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("max_length", "use max_new_tokens"),
        ("min_length", "use min_new_tokens"),
        ("eos_token_id", "set by the prompt template"),
        ("return_dict_in_generate", "what comes out is text"),
    ],
)
def test_a_field_that_would_break_the_outcome_is_refused(name: str, instead: str) -> None:
    with pytest.raises(RecipeError, match=f"^command line: --{name}: .*{instead}"):
        check_fields({name: 3}, "command line: --")


def test_several_texts_a_row_are_refused_where_texts_are_scored(recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match="a text is scored alone"):
        fields(recipe_file, "eval.answer.arguments={num_return_sequences: 2, do_sample: true}")


def test_a_value_is_refused_before_any_model_is_loaded(recipe_file: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"^decoding questions: early_stopping: transformers refuses .*early"
    ):
        fields(recipe_file, "eval.answer.arguments={early_stopping: perhaps}")


def test_the_recipes_length_penalty_goes_with_beams_asked_for_later(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["eval.caption.length_penalty=-1.0"])
    found = generation_fields(recipe, {"num_beams": 3})["caption"]
    assert (found["num_beams"], found["length_penalty"]) == (3, -1.0)
