"""Answers in VQA v2's layouts: which are scored and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qvft.errors import DataError
from qvft.evaluation.official.scored import Scored
from qvft.evaluation.official.vqa import score_vqa_files

# By question: the human answers, the question type, the answer type.
HUMANS = {
    11: (["yes"] * 10, "is the", "yes/no"),
    12: (["red"] * 2 + ["blue"] * 8, "what color", "other"),
    13: (["2"] * 9 + ["3"], "how many", "number"),
    14: (["no"] * 9 + ["yes"], "is the", "yes/no"),
}
RIGHT = {11: "yes", 12: "red", 13: "3", 14: "yes"}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def annotation(question: int) -> dict[str, Any]:
    answers, question_type, answer_type = HUMANS[question]
    return {
        "question_id": question,
        "question_type": question_type,
        "answer_type": answer_type,
        "answers": [{"answer": a, "answer_id": n + 1} for n, a in enumerate(answers)],
    }


def rows(answers: dict[int, str]) -> list[dict[str, Any]]:
    return [{"question_id": question, "answer": text} for question, text in answers.items()]


def scored(
    folder: Path,
    results: Any,
    *,
    questions: Any = None,
    annotations: Any = None,
    rules: Any = "2017",
) -> Scored:
    asked = [{"question_id": q, "image_id": 1, "question": "?"} for q in HUMANS]
    known = [annotation(question) for question in HUMANS]
    return score_vqa_files(
        write(folder / "q.json", {"questions": asked if questions is None else questions}),
        write(folder / "a.json", {"annotations": known if annotations is None else annotations}),
        write(folder / "r.json", results),
        rules=rules,
    )


def test_accuracies_are_percentages_overall_and_by_type(tmp_path: Path) -> None:
    # 10, 2, 1 and 1 of ten humans agree: 1, 0.6, 0.3 and 0.3.
    result = scored(tmp_path, rows(RIGHT))
    assert result.metrics == {
        "overall": 55.0,
        "per_question_type": {"is the": 65.0, "what color": 60.0, "how many": 30.0},
        "per_answer_type": {"yes/no": 65.0, "other": 60.0, "number": 30.0},
    }
    assert result.per_item == {"11": 100.0, "12": 60.0, "13": 30.0, "14": 30.0}
    assert (result.n, result.settings, result.notes) == (4, {"rules": "2017"}, ())


def test_means_are_rounded_to_two_digits(tmp_path: Path) -> None:
    known = [annotation(11), annotation(12), annotation(14)]
    result = scored(tmp_path, rows({11: "yes", 12: "red", 14: "yes"}), annotations=known)
    assert result.metrics["overall"] == 63.33
    assert result.counts["without_annotation"] == 1
    assert result.notes == ("questions without annotation: 1 of 4, not scored",)


def test_the_rules_of_2021_are_a_choice(tmp_path: Path) -> None:
    said = rows(RIGHT | {11: "Yes."})
    assert scored(tmp_path, said, rules="2017").per_item["11"] == 100.0
    later = scored(tmp_path, said, rules="2021")
    assert later.per_item["11"] == 0.0
    assert later.settings == {"rules": "2021"}
    assert "2021" in later.definition


def test_of_two_rows_for_a_question_the_first_counts_and_it_is_said(tmp_path: Path) -> None:
    result = scored(tmp_path, [*rows(RIGHT), {"question_id": "12", "answer": "blue"}])
    assert result.per_item["12"] == 60.0
    assert result.counts["duplicate_rows"] == 1
    assert result.notes == (
        "rows that repeat a question: 1, first 12; the first row of a question counts",
    )


def test_outer_blanks_of_human_answers_are_kept(tmp_path: Path) -> None:
    """The rules of 2017 never strip them, so they match nothing."""
    spaced = annotation(11) | {"answers": [{"answer": " yes"}] * 10}
    result = scored(tmp_path, rows({11: "yes"}), annotations=[spaced])
    assert result.metrics["overall"] == 0.0


def test_unknown_questions_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"r\.json: 1 of 5 questions have no annotation: 99;"):
        scored(tmp_path, rows(RIGHT | {99: "x"}))


def test_questions_without_a_prediction_are_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 4 questions have no prediction: 12, 14;"):
        scored(tmp_path, rows({11: "yes", 13: "2"}))


def test_an_empty_answer_counts_as_wrong(tmp_path: Path) -> None:
    assert scored(tmp_path, rows(RIGHT | {11: ""})).per_item["11"] == 0.0


def test_annotations_of_other_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"q\.json: 3 of 4 annotated questions are no questions"):
        scored(tmp_path, rows(RIGHT), questions=[{"question_id": 11}])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"answers": []}, "`answers` has 0; expected the ten human answers"),
        ({"answers": [{"answer": "yes"}]}, "`answers` has 1"),
        ({"answers": "yes"}, "record 0, answers: a string"),
        ({"answers": [{"answer": 2}] * 10}, "answers, record 0: `answer` is a number"),
        ({"answer_type": None}, "`answer_type` is null"),
        ({"question_id": True}, "`question_id` is true or false"),
    ],
)
def test_a_broken_annotation_is_named(tmp_path: Path, change: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        scored(tmp_path, rows(RIGHT), annotations=[annotation(11) | change])


def test_a_question_that_is_annotated_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 1: `question_id` 11 is annotated twice; .*remove"):
        scored(tmp_path, rows(RIGHT), annotations=[annotation(11)] * 2)


def test_a_key_that_the_format_uses_itself_is_not_offered(tmp_path: Path) -> None:
    """`question` is the text; renamed to `question_id` it would be lost."""
    with pytest.raises(DataError, match="`question_id` is missing; add it"):
        scored(tmp_path, rows(RIGHT), questions=[{"question": "?", "image_id": 1}])
    with pytest.raises(DataError, match="`question_id` is missing; rename `questionId` to it"):
        scored(tmp_path, rows(RIGHT), questions=[{"question": "?", "questionId": 11}])


def test_no_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotations"):
        scored(tmp_path, rows(RIGHT), annotations=[])
