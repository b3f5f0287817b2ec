"""Captions in many languages, made up here: tokens and scores are those that the official programs
gave (`ptb_program.py` records them, `test_tokenize_java.py` asks again where Java is)."""

from __future__ import annotations

import json
import unicodedata

import pytest
from ptb_program import SCORES, TOKENS

from qvft.evaluation.metrics.captions import NAMES, score_captions
from qvft.evaluation.metrics.tokenize import tokenize

OFFICIAL_TOKENS = json.loads(TOKENS.read_text(encoding="utf-8"))
OFFICIAL_SCORES = json.loads(SCORES.read_text(encoding="utf-8"))

# The official scripts and this package add the same doubles in another order.
ROUNDING = 1e-12


@pytest.mark.parametrize("language", OFFICIAL_TOKENS)
def test_tokens_equal_the_programs(language: str) -> None:
    official = OFFICIAL_TOKENS[language]
    assert {text: " ".join(tokenize(text)) for text in official} == official


def test_vowel_signs_belong_to_their_words() -> None:
    assert tokenize("একটি কুকুর") == ["একটি", "কুকুর"]


def test_many_languages_and_scripts_are_covered() -> None:
    texts = "".join(text for captions in OFFICIAL_TOKENS.values() for text in captions)
    scripts = {unicodedata.name(letter).split()[0] for letter in texts if letter.isalpha()}
    assert len(OFFICIAL_TOKENS) >= 90
    assert len(scripts) >= 35


@pytest.mark.parametrize("language", OFFICIAL_SCORES)
def test_scores_equal_the_toolkits(language: str) -> None:
    case = OFFICIAL_SCORES[language]
    scores = score_captions(case["references"], case["predictions"])
    assert set(case["scores"]) == set(NAMES)
    assert scores.corpus == pytest.approx(case["scores"], abs=ROUNDING)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("language", OFFICIAL_SCORES)
def test_predictions_score_the_same_composed_and_decomposed(language: str, form: str) -> None:
    case = OFFICIAL_SCORES[language]
    said = {key: unicodedata.normalize(form, text) for key, text in case["predictions"].items()}
    assert score_captions(case["references"], said).corpus == (
        score_captions(case["references"], case["predictions"]).corpus
    )


def test_a_decomposed_letter_after_an_elision_is_the_composed_one() -> None:
    # The program itself takes them for different words: after an elision it wants two letters.
    assert tokenize("l'e\u0301glise") == ["l'", "e\u0301glise"]
    assert tokenize("l'\u00e9glise") == ["l'\u00e9glise"]
    references = {"x": ["l'\u00e9glise ferm\u00e9e"], "y": ["un chien"]}
    said = {"x": "l'e\u0301glise ferme\u0301e", "y": "un chien"}
    assert score_captions(references, said).corpus["Bleu_2"] == pytest.approx(1.0, abs=1e-6)
