from __future__ import annotations

import unicodedata

import pytest

from qvft.evaluation.metrics.answers import (
    answer_tokens,
    exact_match,
    find_yes_no,
    is_yes_no,
    normalise_answer,
    parse_yes_no,
)


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


WORDS = {
    "Bengali": "কিডনি", "Hindi": "गुर्दा", "Tamil": "சிறுநீரகம்", "Thai": "ไม่มี",
    "Khmer": "តម្រងនោម",
    "Burmese": "ကျောက်ကပ်", "Arabic": "كُلْيَة", "Hebrew": "כִּלְיָה", "Persian": "می\u200cشود",
    "Vietnamese": "thận phổi", "Korean": "신장", "Greek": "νεφρό", "Yoruba": "ọ̀pọ̀lọ",
    "Russian": "мозгово\u0301й",
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS.keys())
def test_a_word_keeps_its_marks_however_it_is_encoded(word: str) -> None:
    forms = [unicodedata.normalize(form, word) for form in ("NFC", "NFD")]
    tokens = [answer_tokens(f"({form}), x") for form in forms]
    assert tokens[0] == tokens[1] == [*forms[0].split(), "x"]


@pytest.mark.parametrize("text", ["কিডনি।", "腎臓。", "गुर्दा ।", "گردہ۔", "kidney."])
def test_a_full_stop_of_any_script_is_dropped(text: str) -> None:
    assert normalise_answer(text) == text[:-1].strip()


@pytest.mark.parametrize("text", ["no\u0301", "n\u00f3", "no\u0323\u0308"])
def test_an_accented_word_is_not_no(text: str) -> None:
    assert parse_yes_no(text) == "unparseable"
    assert find_yes_no(text) == "neither"


@pytest.mark.parametrize(
    "text, found",
    [
        ("The answer is YES.", "yes"), ("I think no", "no"), ("There is no fracture", "no"),
        ("No\nThere is nothing.", "no"), ("(yes)", "yes"), ("'no'", "no"), ("yes/no", "both"),
        ("yes, no doubt", "both"), ("no, yes", "both"), ("", "neither"), ("  ", "neither"),
        ("None", "neither"), ("a small nodule is noted", "neither"), ("noyes", "neither"),
        ("yesterday's film", "neither"), ("abnormal", "neither"), ("no-one", "neither"),
        ("not sure", "neither"), ("y", "neither"), ("unknown", "neither"),
    ],
)  # fmt: skip
def test_yes_and_no_are_found_anywhere_as_whole_words(text: str, found: str) -> None:
    assert find_yes_no(text) == found


def test_exact_match_knows_letters_not_encodings() -> None:
    assert exact_match("thận", [unicodedata.normalize("NFD", "Thận.")]) == 1
    assert exact_match("কাডনা", ["কিডনি"]) == 0
