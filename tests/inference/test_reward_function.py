"""Rewards of texts: what is no reward is refused with its key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.errors import RecipeError
from qvft.evaluation.rewards import reward_functions
from qvft.inference.reward_function import UNTRAINED, held_out_score, rewards_of
from qvft.inference.sampled import Sampled

FUNCTIONS = "tests.training.rewards.functions"
ROW = Row("x", Sample("x", ImageFile(Path("x.png"))), "caption", None, "a", ("a",), {})


def texts_of(*texts: str) -> list[Sampled]:
    return [Sampled(0, ROW, "", (1,), (2, 3), text, True) for text in texts]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "raised KeyError: 'no such column'"),
        ("too_few", "returned 1 rewards"),
        ("not_a_number", "returned nan for row x"),
        ("texts", "returned 'a man' for row x"),
        ("leaves", "raised SystemExit: 0"),
    ],
)
def test_what_is_no_reward_is_refused_with_the_key(name: str, said: str) -> None:
    dotted = f"{FUNCTIONS}.{name}"
    function = reward_functions([dotted], [ROW], True)[dotted]
    with pytest.raises(RecipeError) as caught:
        rewards_of(function, texts_of("a man", "a"), UNTRAINED)
    assert str(caught.value).startswith(f"reward.funcs.{dotted}: {said}")
    assert "2 texts" in str(caught.value)
    with pytest.raises(RecipeError, match=r"reward\.funcs"):
        held_out_score(function, texts_of("a man", "a"))


@pytest.mark.parametrize(("name", "mean"), [("numerals", 1.0), ("of_captions", 1.0)])
def test_the_held_out_metric_of_a_function_of_ones_own_is_its_mean(name: str, mean: float) -> None:
    dotted = f"{FUNCTIONS}.{name}"
    function = reward_functions([dotted], [ROW], True)[dotted]
    assert held_out_score(function, texts_of("a man", "a", "b")) == mean
    asked = replace(ROW, kind="question", question="Is it?")
    nothing = [replace(text, row=asked) for text in texts_of("yes")]
    assert name == "numerals" or held_out_score(function, nothing) is None
