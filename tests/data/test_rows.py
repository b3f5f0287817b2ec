"""From samples to rows: which texts, which target, which references."""

from pathlib import Path
from typing import Literal

import pytest

from qvft.data.rows import Row, choose_rows, evaluation_rows, training_rows
from qvft.data.sample import ImageFile, Question, Sample
from qvft.errors import DataError

SAMPLE = Sample(
    "s",
    ImageFile(Path("s.png")),
    captions=("one", "two"),
    questions=(
        Question("q1", "Where?", ("here", "there", "there"), {"answer_type": "open"}),
        Question("q2", "Which?", ("b", "a")),
    ),
    meta={"organ": "CHEST", "answer_type": "hidden", "number": 3},
)


def test_training_sees_each_caption_and_each_question_once() -> None:
    rows = training_rows([SAMPLE])
    assert [(row.id, row.kind, row.question, row.target) for row in rows] == [
        ("s#caption0", "caption", None, "one"),
        ("s#caption1", "caption", None, "two"),
        ("q1", "question", "Where?", "there"),
        ("q2", "question", "Which?", "b"),
    ]


def test_the_target_is_the_most_frequent_answer_and_the_first_among_equals() -> None:
    assert [row.target for row in training_rows([SAMPLE], texts="questions")] == ["there", "b"]


def test_evaluation_asks_for_one_caption_with_all_references() -> None:
    caption, *questions = evaluation_rows([SAMPLE])
    assert (caption.id, caption.references) == ("s", ("one", "two"))
    assert [row.references for row in questions] == [("here", "there", "there"), ("b", "a")]


def test_texts_can_be_limited_to_one_kind() -> None:
    for rows in (training_rows, evaluation_rows):
        assert {row.kind for row in rows([SAMPLE], texts="captions")} == {"caption"}
        assert {row.kind for row in rows([SAMPLE], texts="questions")} == {"question"}


def test_a_sample_without_captions_has_no_caption_row() -> None:
    bare = Sample("b", SAMPLE.image, questions=SAMPLE.questions)
    assert [row.kind for row in evaluation_rows([bare])] == ["question", "question"]


def test_meta_is_the_images_overlaid_by_the_questions_as_text() -> None:
    caption, _, first, second = training_rows([SAMPLE])
    assert caption.meta == {"organ": "CHEST", "answer_type": "hidden", "number": "3"}
    assert first.meta == {"organ": "CHEST", "answer_type": "open", "number": "3"}
    assert second.meta == caption.meta


def test_row_ids_are_unique_within_a_split() -> None:
    other = Sample("t", SAMPLE.image, captions=("one",))
    ids = [row.id for row in training_rows([SAMPLE, other])]
    assert len(ids) == len(set(ids))


def numbered(count: int) -> list[Sample]:
    """Images 1 to n beside questions 1 to n, as many datasets have them."""
    return [
        Sample(str(n), SAMPLE.image, ("a caption",), (Question(str(n), "Which?", ("a",)),))
        for n in range(1, count + 1)
    ]


def test_images_and_questions_with_the_same_ids_give_rows_of_different_ids() -> None:
    ids = [row.id for row in evaluation_rows(numbered(2))]
    assert ids == ["1#captions", "1", "2#captions", "2"]
    assert [row.id for row in evaluation_rows(numbered(1))] == ids[:2]  # as `limit` leaves it
    assert [row.id for row in evaluation_rows(numbered(2), texts="captions")] == ["1", "2"]


def test_ids_that_cannot_be_told_apart_are_refused() -> None:
    asked = Question("1#captions", "Which?", ("a",))
    with pytest.raises(DataError, match="two texts have the id 1#captions"):
        evaluation_rows([*numbered(1), Sample("x", SAMPLE.image, questions=(asked,))])


def row(kind: Literal["caption", "question"], image: int, number: int = 0) -> Row:
    sample = Sample(f"image{image}", ImageFile(Path("s.png")))
    question = "What is it?" if kind == "question" else None
    return Row(f"{kind}{image}#{number}", sample, kind, question, "red", ("red",), {})


def test_kinds_take_turns_and_new_images_come_first() -> None:
    rows = [row("caption", 0), row("question", 0), row("question", 1), row("question", 1, 1)]
    ids = [chosen.id for chosen in choose_rows(rows, 3)]
    assert ids == ["caption0#0", "question1#0", "question0#0"]


def test_fewer_rows_than_asked_for_are_all_chosen() -> None:
    rows = [row("question", 0), row("question", 0, 1)]
    assert len(choose_rows(rows, 8)) == len(choose_rows(rows, 8, spread=True)) == 2
    assert choose_rows([], 8) == choose_rows([], 8, spread=True) == []


def test_spread_rows_are_at_even_distances_and_fill_up_a_short_kind() -> None:
    rows = [row("caption", n) for n in range(3)] + [row("question", n) for n in range(100)]
    ids = [chosen.id for chosen in choose_rows(rows, 13, spread=True)]
    assert [name for name in ids if name.startswith("c")] == [f"caption{n}#0" for n in range(3)]
    assert ids[1::2][:2] == ["question0#0", "question10#0"]
    assert ids[-1] == "question90#0"
