"""The plain sentences of a report: does the model use the image, and beat frequent answers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from qvft.evaluation.comparison import compare
from qvft.evaluation.pairing import pair
from qvft.evaluation.report.verdict import retention_verdicts, verdicts
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import Scores, score
from qvft.setup.query_similarity import COLLAPSED, collapse_warning


def rows_saying(texts: Sequence[str], *, kind: str = "question") -> list[PredictionRow]:
    question = "Which?" if kind == "question" else None
    references = ("a red bus on a road",) if kind == "caption" else ("red",)
    return [
        PredictionRow(f"{i}", f"{i}.png", kind, question, text, references)
        for i, text in enumerate(texts)
    ]


def scored(rows: list[PredictionRow]) -> Scores:
    return score(rows)


RIGHT, WRONG = ["red"] * 20, ["blue"] * 20


def test_a_model_that_is_right_with_the_right_images_alone_uses_them() -> None:
    mine, theirs = rows_saying(RIGHT), rows_saying(WRONG)
    (said,) = verdicts(mine, scored(mine), blind=scored(theirs))
    assert said == (
        "The model uses the image for questions: exact match is 100.0 % with the right images and "
        "0.0 % with the images shuffled; the difference is +100.0 points (95 % interval +100.0 "
        "points to +100.0 points)."
    )


def test_a_model_that_says_the_same_to_any_image_does_not() -> None:
    """Half of its answers are right whatever it is shown."""
    mine = rows_saying([*RIGHT, *WRONG] * 3)
    (said,) = verdicts(mine, scored(mine), blind=scored(mine))
    assert said.startswith("This model hardly uses the image for questions: exact match")
    assert "the difference is 0.0 points" in said and "trainable.vision=full" in said
    assert "tell little" not in said  # 120 images


def test_collapsed_queries_are_no_reason_for_higher_rates() -> None:
    mine = rows_saying([*RIGHT, *WRONG] * 3)
    image, collapse = verdicts(mine, scored(mine), blind=scored(mine), query_similarity=1.0)
    assert "Try higher learning rates" not in image
    assert "lower learning rates" in collapse


def test_few_images_are_said_to_tell_little() -> None:
    mine = rows_saying(["red", "blue", "red"])
    (said,) = verdicts(mine, scored(mine), blind=scored(mine))
    assert said.startswith("Whether this model uses the image for questions cannot be told")
    assert "3 images tell little" in said


def test_a_wide_interval_with_zero_in_it_tells_nothing() -> None:
    mine = rows_saying([*RIGHT, *WRONG] * 3)
    theirs = rows_saying([*WRONG, *RIGHT] * 3)  # as often right, for other images
    (said,) = verdicts(mine, scored(mine), blind=scored(theirs))
    assert said.startswith("Whether this model uses the image for questions cannot be told")
    assert "tell little" not in said  # 120 images


def test_a_model_that_is_better_with_wrong_images_does_not_use_them() -> None:
    mine, theirs = rows_saying(WRONG), rows_saying(RIGHT)
    (said,) = verdicts(mine, scored(mine), blind=scored(theirs))
    assert said.startswith("This model hardly uses the image")


def test_captions_are_judged_by_their_own_metric() -> None:
    mine = rows_saying(["a red bus on a road"] * 9 + ["a dog"], kind="caption")
    theirs = [replace(row, prediction="nothing") for row in mine]
    said = verdicts(mine, scored(mine), blind=scored(theirs))
    assert len(said) == 1 and "CIDEr is" in said[0] and "for captions" in said[0]


def test_the_most_frequent_answer_is_a_bar_to_pass() -> None:
    mine, frequent = rows_saying(RIGHT), rows_saying(WRONG)
    (said,) = verdicts(mine, scored(mine), frequent=scored(frequent))
    assert said.startswith("It answers better than always giving the most frequent training answer")
    (said,) = verdicts(mine, scored(mine), frequent=scored(mine))
    assert said.startswith("Whether it answers better than always giving")
    assert "cannot be told" in said
    (said,) = verdicts(frequent, scored(frequent), frequent=scored(mine))
    assert said.startswith("It answers worse than always giving")


def test_nothing_compared_nothing_said() -> None:
    mine = rows_saying(RIGHT)
    assert verdicts(mine, scored(mine), query_similarity=0.9) == []
    one_image = [replace(row, image="same.png") for row in mine]
    assert verdicts(one_image, scored(one_image), blind=scored(one_image)) == []


@pytest.mark.parametrize("similarity", [COLLAPSED, 1.0])
def test_queries_that_became_one_are_said(similarity: float) -> None:
    (said,) = collapse_warning(similarity)
    assert "have collapsed onto one another" in said and f"{similarity:.3f}" in said


def test_queries_that_differ_are_not(similarity: float = 0.9949) -> None:
    assert collapse_warning(similarity) == []


@pytest.mark.parametrize(
    ("tuned", "base", "begins"),
    [
        (WRONG, RIGHT, "It lost on scenes"),
        (RIGHT, WRONG, "It gained on scenes"),
        (RIGHT, RIGHT, "Whether it forgot something about scenes cannot be told"),
        (WRONG[:10] + RIGHT[10:], RIGHT[:10] + WRONG[10:], "Whether it forgot something"),
    ],
)
def test_retention_says_what_was_lost_or_that_it_cannot_be_told(
    tuned: list[str], base: list[str], begins: str
) -> None:
    rows, others = rows_saying(tuned), rows_saying(base)
    found = compare(rows, scored(rows), pair(rows, others, where="base"), name="base")
    (said,) = retention_verdicts({"scenes": found})
    assert said.startswith(begins)
