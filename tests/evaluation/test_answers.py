from __future__ import annotations

import pytest

from qvft.evaluation.answers import is_yes_no, normalise_answer, parse_yes_no
from qvft.evaluation.metrics.exact import exact_match


@pytest.mark.parametrize(
    "text, normal",
    [("  Left   Lung. ", "left lung"), ("X\n", "x"), ("3.5", "3.5"), ("etc..", "etc."), (".", "")],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


@pytest.mark.parametrize("text", ["yes", "Yes.", " YES, there is", "yes it does", "yes\n", "yes!"])
def test_parsed_as_yes(text: str) -> None:
    assert parse_yes_no(text) == "yes"


@pytest.mark.parametrize("text", ["no", "No.", "no, the heart", "No it is not", "no not seen"])
def test_parsed_as_no(text: str) -> None:
    assert parse_yes_no(text) == "no"


@pytest.mark.parametrize(
    "text",
    ["", "?", "maybe", "yes and no", "no fracture", "normal", "yesterday", "none", "not sure", "y"],
)
def test_everything_else_is_unparseable(text: str) -> None:
    assert parse_yes_no(text) == "unparseable"


def test_yes_no_references() -> None:
    assert is_yes_no(["Yes", "no."])
    assert not is_yes_no(["yes", "left"])
    assert not is_yes_no([])


def test_exact_match_with_any_reference() -> None:
    assert exact_match("Left  lung.", ["right lung", "left lung"]) == 1
    assert exact_match("lung", ["right lung", "left lung"]) == 0
