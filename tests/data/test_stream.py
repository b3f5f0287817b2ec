"""The order of what is passed over."""

from __future__ import annotations

from random import Random

from qvft.data.sample import Question, Sample
from qvft.data.stream import buffered, row_groups


def test_a_buffer_gives_everything_once_and_nothing_earlier_than_it_can_hold() -> None:
    drawn = list(buffered(range(1000), 50, Random("0")))
    assert sorted(drawn) == list(range(1000))
    assert all(number < place + 51 for place, number in enumerate(drawn))
    assert drawn != sorted(drawn)


def test_a_buffer_of_one_keeps_the_order() -> None:
    assert list(buffered(range(5), 1, Random("0"))) == [0, 1, 2, 3, 4]


def test_what_is_less_than_the_buffer_is_shuffled() -> None:
    drawn = list(buffered(range(20), 100, Random("0")))
    assert sorted(drawn) == list(range(20))
    assert drawn != sorted(drawn)


def test_rows_of_a_sample_are_cut_into_groups() -> None:
    questions = tuple(Question(f"q{n}", "Is it red?", ("yes",)) for n in range(4))
    sample = Sample("a", None, ("a red picture",), questions)  # type: ignore[arg-type]
    groups = list(row_groups(sample, 2, Random("0"), texts="all"))
    assert [len(group) for group in groups] == [2, 2, 1]
    assert {row.id for group in groups for row in group} == {
        "a#caption0", "q0", "q1", "q2", "q3",
    }  # fmt: skip
    assert [row.id for (row,) in row_groups(sample, 1, Random("0"), texts="captions")] == [
        "a#caption0"
    ]
