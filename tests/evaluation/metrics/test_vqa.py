from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from qvft.evaluation.metrics.vqa import Rules, vqa_accuracy

OFFICIAL_NAMES = {"2017": "2017", "2021": "2021_HEAD"}


@pytest.mark.parametrize("rules", ["2017", "2021"])
@pytest.mark.parametrize("predictions", ["mc", "first_human", "yes"])
def test_equals_the_official_evaluator_question_by_question(
    shared_data: Path, predictions: str, rules: Rules
) -> None:
    folder = shared_data / "vqa_v2"
    annotations = json.loads((folder / "test_annotations.json").read_text())["annotations"]
    results = json.loads((folder / f"test_results_{predictions}.json").read_text())
    given = {row["question_id"]: row["answer"] for row in results}
    official = json.loads(
        (folder / f"test_{predictions}_official_{OFFICIAL_NAMES[rules]}.json").read_text()
    )
    scores, by_type = {}, defaultdict(list)
    for question in annotations:
        answers = [answer["answer"] for answer in question["answers"]]
        score = vqa_accuracy(given[question["question_id"]], answers, rules=rules)
        scores[str(question["question_id"])] = round(100 * score, 2)
        by_type[question["question_type"]].append(score)
    assert scores == official["evalQA"]
    assert {k: round(100 * sum(v) / len(v), 2) for k, v in by_type.items()} == (
        official["accuracy"]["perQuestionType"]
    )


@pytest.mark.parametrize("matches, expected", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_matches_among_ten_answers(matches: int, expected: float) -> None:
    answers = ["red"] * matches + ["blue"] * (10 - matches)
    assert vqa_accuracy("red", answers) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rules", ["2017", "2021"])
@pytest.mark.parametrize("others", ["caf\u00e9", "bar"])
def test_a_letter_is_the_same_composed_and_decomposed(rules: Rules, others: str) -> None:
    answers = ["cafe\u0301"] * 5 + ["caf\u00e9"] * 4 + [others]
    assert vqa_accuracy("caf\u00e9", answers, rules=rules) == 1
    assert vqa_accuracy("cafe\u0301", answers, rules=rules) == 1
    assert vqa_accuracy("cafe", answers, rules=rules) == 0


def test_2017_cannot_match_a_human_number_word() -> None:
    answers = ["one"] * 9 + ["two"]
    assert vqa_accuracy("one", answers, rules="2017") == 0
    assert vqa_accuracy("one", answers, rules="2021") == 1


def test_2021_compares_raw_strings_when_all_humans_agree() -> None:
    assert vqa_accuracy("Yes.", ["yes"] * 10, rules="2021") == 0
    assert vqa_accuracy("Yes.", ["yes"] * 10, rules="2017") == 1


@pytest.mark.parametrize(
    "prediction, same_as",
    [
        ("The dog!", "dog"),
        ("dont know", "don't know"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("black/ white", "black white"),
        ("p.m.", "pm"),
        ("1.5", "1.5"),
        ("somebody'd", "somebodyd"),
        ("Im here", "im here"),
        ("a", ""),
    ],
)
def test_normalisation_of_a_prediction(prediction: str, same_as: str) -> None:
    assert vqa_accuracy(prediction, [same_as] * 10, rules="2017") == 1


def test_one_answer_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least two"):
        vqa_accuracy("red", ["red"])
