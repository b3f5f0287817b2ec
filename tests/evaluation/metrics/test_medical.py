from __future__ import annotations

import math

import pytest

from qvft.evaluation.metrics.medical import (
    DEFINITIONS,
    answer_type,
    bleu_1,
    closed_correct,
    closed_correct_llava_med,
    token_f1,
    token_recall,
)

# Sums of a few doubles.
ROUNDING = 1e-12


def test_stated_answer_type_wins_over_the_references() -> None:
    assert answer_type(["yes"], {"answer_type": "OPEN"}) == "open"
    assert answer_type(["left"], {"answer_type": "CLOSED "}) == "closed"


def test_without_a_stated_type_yes_and_no_are_closed() -> None:
    assert answer_type(["Yes", "no."], {}) == "closed"
    assert answer_type(["yes", "left"], {}) == "open"


def test_closed_yes_no_needs_the_word_first() -> None:
    assert closed_correct("Yes, it is.", ["yes"]) == 1
    assert closed_correct("the answer might be yes", ["yes"]) == 0


def test_closed_choice_needs_an_exact_match() -> None:
    assert closed_correct("Left.", ["left"]) == 1
    assert closed_correct("left lung", ["left"]) == 0


def test_token_scores_by_hand() -> None:
    # Shared: right, lobe. Prediction has 3 tokens, reference 4.
    prediction, references = "right lower lobe", ["the right upper lobe"]
    assert token_recall(prediction, references) == pytest.approx(2 / 4, abs=ROUNDING)
    assert token_f1(prediction, references) == pytest.approx(4 / 7, abs=ROUNDING)
    assert bleu_1(prediction, references) == pytest.approx(2 / 3 * math.exp(-1 / 3), abs=ROUNDING)


def test_repeated_tokens_count_as_often_as_in_the_reference() -> None:
    assert token_recall("left", ["left left"]) == pytest.approx(0.5, abs=ROUNDING)
    assert bleu_1("left left left", ["left"]) == pytest.approx(1 / 3, abs=ROUNDING)


def test_the_best_reference_counts() -> None:
    assert token_f1("mri", ["ct scan", "MRI"]) == 1


@pytest.mark.parametrize("score", [token_recall, token_f1, bleu_1])
def test_an_empty_prediction_scores_zero(score) -> None:
    assert score("", ["left"]) == 0


def test_llava_meds_rule_drops_wrong_yes_no_answers() -> None:
    assert closed_correct_llava_med("yes", "yes") == 1
    assert closed_correct_llava_med("no", "yes") is None
    assert closed_correct_llava_med("maybe", "yes") == 0
    assert closed_correct_llava_med("unknown", "no") == 1  # a substring


def test_every_definition_is_named_and_versioned() -> None:
    assert all(text.startswith(f"{name}/v") for name, text in DEFINITIONS.items())
