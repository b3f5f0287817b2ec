from __future__ import annotations

import math
import unicodedata

import pytest

from qvft.evaluation.metrics.medical import (
    DEFINITIONS,
    answer_type,
    bleu_1,
    closed_correct,
    closed_correct_anywhere,
    item_scores,
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


def test_a_verbose_answer_is_right_where_yes_or_no_stands_anywhere_in_it() -> None:
    assert closed_correct("The answer is yes.", ["Yes"]) == 0
    assert closed_correct_anywhere("The answer is yes.", ["Yes"]) == 1
    assert closed_correct_anywhere("There is no fracture.", ["no."]) == 1
    assert closed_correct_anywhere("There is no fracture.", ["yes"]) == 0


@pytest.mark.parametrize("prediction", ["yes and no", "a nodule", "None", "", "not sure"])
def test_an_undecided_answer_is_wrong_and_counted(prediction: str) -> None:
    for reference in ("yes", "no"):
        scores, outcome = item_scores(prediction, [reference], "closed")
        assert (scores["closed_accuracy_anywhere"], scores["closed_undecided"]) == (0, 1)
        assert outcome["parsed_anywhere"] == ("both" if "and" in prediction else "neither")


def test_another_closed_answer_must_be_equal_anywhere_too() -> None:
    scores, outcome = item_scores("It is left", ["left"], "closed")
    assert scores == {"accuracy": 0, "closed_accuracy": 0, "closed_accuracy_anywhere": 0}
    assert outcome == {"answer_type": "closed"}
    assert closed_correct_anywhere("Left.", ["left"]) == 1


@pytest.mark.parametrize(
    "prediction, reference, recall, f1",
    [
        ("কাডনা", "কিডনি", 0, 0),  # the same consonants, other vowels
        ("का", "की", 0, 0), ("ไม่", "ไม้", 0, 0), ("كَتَبَ", "كُتِبَ", 0, 0), ("má", "mà", 0, 0),
        ("কিডনি আছে", "কিডনি", 1, 2 / 3), ("কিডনি", "কিডনি আছে", 1 / 2, 2 / 3),
        ("यकृत में घाव", "घाव", 1, 1 / 2), ("phổi phải", "phổi phải", 1, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_marks_are_part_of_their_letters(
    prediction: str, reference: str, recall: float, f1: float, form: str
) -> None:
    given = unicodedata.normalize(form, prediction)
    assert token_recall(given, [reference]) == recall
    assert token_f1(given, [reference]) == pytest.approx(f1, abs=ROUNDING)


def test_a_closed_answer_is_the_same_however_its_letters_are_encoded() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Có.") for form in ("NFC", "NFD"))
    for given, wanted in ((composed, decomposed), (decomposed, composed)):
        scores, _ = item_scores(given, [wanted], "closed")
        assert set(scores.values()) == {1.0}


def test_every_definition_is_named_and_versioned() -> None:
    assert all(text.startswith(f"{name}/v") for name, text in DEFINITIONS.items())
