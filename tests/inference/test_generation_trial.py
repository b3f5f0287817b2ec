"""Decoding settings that would break `generate` are told before a large model is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.inference import generation_trial as trial
from qvft.inference.generation_trial import tried_fields
from qvft.inference.vision_language_model import load_model
from qvft.models.base_checkpoint import TINY_ID
from qvft.recipe.load import parse_recipe
from qvft.recipe.schema import Recipe
from qvft.setup.model import base_of


def recipe(**evaluation: Any) -> Recipe:
    return parse_recipe({"name": "x", "model": {"id": TINY_ID}, "eval": evaluation})


def tried(given: Recipe, **fields: Any) -> dict[str, dict[str, Any]]:
    return tried_fields(given, base_of(given), fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"guidance_scale": 3},
        {"prefill_chunk_size": 2},
        {"watermarking_config": 3},
        {"exponential_decay_length_penalty": []},
        {"stop_strings": [1]},
        {"forced_eos_token_id": {}},
        {"cache_implementation": "no_such"},
    ],
    ids=str,
)
def test_a_field_that_breaks_generate_is_named(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(RecipeError, match=f"{name}: transformers refuses"):
        tried(recipe(), num_beams=2, **fields)


def test_the_recipes_key_is_named() -> None:
    given = recipe(answer={"arguments": {"guidance_scale": 3}})
    with pytest.raises(RecipeError) as caught:
        tried(given)
    assert caught.value.where == "eval.answer.arguments.guidance_scale"


def test_fields_that_a_model_was_proven_with_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    given = recipe(answer={"arguments": {"repetition_penalty": 1.2}})

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("qvft.inference.generation_trial._try", refuse)
    found = tried_fields(given, base_of(given), {"num_beams": 2}, proven=True)
    assert found["question"]["repetition_penalty"] == 1.2
    with pytest.raises(AssertionError):
        tried_fields(given, base_of(given), {"top_p": 0.5}, proven=True)


def test_more_new_tokens_than_positions_are_refused_with_the_key() -> None:
    with pytest.raises(RecipeError, match=r"^command line: --max_new_tokens: 5140 positions"):
        tried(recipe(), max_new_tokens=5000)
    asked = load_model(TINY_ID)
    with pytest.raises(RecipeError, match=r"^max_new_tokens: 5140 positions"):
        asked.caption([], max_new_tokens=5000)


@pytest.mark.parametrize("value", [None, 0, -1, 2.5, True, "x", 2**70])
def test_a_number_of_new_tokens_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(RecipeError, match="max_new_tokens: "):
        tried(recipe(), max_new_tokens=value)


def test_a_field_that_works_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    settings = tried(recipe(), no_repeat_ngram_size=3, do_sample=True, temperature=0.7)
    assert settings["caption"]["no_repeat_ngram_size"] == 3
    assert capsys.readouterr().out == ""


def test_the_recipes_own_keys_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_try", lambda *_: pytest.fail("was tried"))
    tried(recipe(caption={"num_beams": 5, "length_penalty": 0.5}))
