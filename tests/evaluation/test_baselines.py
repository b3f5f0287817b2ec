from __future__ import annotations

import pytest

from qvft.data.sample import Question
from qvft.errors import DataError
from qvft.evaluation.baselines import most_frequent_answers


def question(*answers: str, kind: str | None = None) -> Question:
    return Question("q", "?", answers, {"answer_type": kind} if kind else {})


def test_the_most_frequent_answer_of_the_type_is_given() -> None:
    train = [
        question("Yes.", kind="CLOSED"),
        question("yes", kind="closed "),
        question("no", kind="CLOSED"),
        question("liver", kind="OPEN"),
    ]
    asked = [question("no", kind="CLOSED"), question("heart", kind="OPEN"), question("x")]
    assert most_frequent_answers(train, asked) == ["yes", "liver", "yes"]


def test_an_unseen_type_gets_the_overall_answer() -> None:
    train = [question("red", kind="a"), question("red", kind="a")]
    assert most_frequent_answers(train, [question("7", kind="number")]) == ["red"]


def test_ten_answers_to_a_question_share_one_vote() -> None:
    train = [question(*["a"] * 10), question("b"), question("b")]
    assert most_frequent_answers(train, [question("x")]) == ["b"]


def test_a_tie_goes_to_the_alphabetically_first() -> None:
    assert most_frequent_answers([question("b"), question("a")], [question("x")]) == ["a"]


def test_no_training_questions_is_an_error() -> None:
    with pytest.raises(DataError, match="no training questions"):
        most_frequent_answers([], [question("x")])
