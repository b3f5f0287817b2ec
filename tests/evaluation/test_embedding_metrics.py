"""What the model gives beside its texts: recalls and accuracy from what rows keep."""

from __future__ import annotations

import json

import pytest

from qvft.evaluation.comparison import compare
from qvft.evaluation.embedding_metrics import (
    RETRIEVAL,
    ZERO_SHOT,
    recall_metric,
    stored_groups,
    zero_shot_metric,
)
from qvft.evaluation.pairing import pair
from qvft.evaluation.rows import PredictionRow, row_to_json
from qvft.evaluation.scoring import score, with_groups

TO_TEXT, TO_IMAGE = "image_to_text_recall_at_1", "text_to_image_recall_at_1"


def captioned(name: str, captions: int) -> PredictionRow:
    texts = tuple(f"{name} seen {number} times" for number in range(captions))
    return PredictionRow(name, f"{name}.png", "caption", None, "a picture", texts)


# A question in between: the numbers of the rows are those of the evaluation.
ROWS = [
    captioned("one", 1),
    PredictionRow("q", "one.png", "question", "Which?", "red", ("red",)),
    captioned("five", 5),
]


def recalls(to_text: dict[int, float], to_image: dict[int, float]):
    return [
        recall_metric(ROWS, TO_TEXT, to_text, how="h"),
        recall_metric(ROWS, TO_IMAGE, to_image, how="h"),
    ]


def test_an_image_is_one_query_and_each_caption_is_one() -> None:
    to_text, to_image = recalls({0: 1.0, 2: 0.0}, {0: 0.0, 2: 0.4})
    assert to_text.value == 50.0
    # None of one caption and two of five: 2 of 6 queries.
    assert to_image.value == pytest.approx(100 * 2 / 6)
    # A draw holds both images, or either of them twice: 0 of 2 and 4 of 10 captions.
    assert to_image.interval == pytest.approx((0.0, 40.0))
    assert to_text.interval == (0.0, 100.0)


def test_one_image_has_no_interval() -> None:
    rows = [captioned("one", 2)]
    assert recall_metric(rows, TO_IMAGE, {0: 0.5}, how="h").interval is None


def test_what_rows_keep_gives_the_groups_again() -> None:
    shares = {0: 1.0, 2: 1 / 3}  # of other row counts, 1 / 3 is no round number
    rows = [ROWS[0], ROWS[1], captioned("five", 3)]
    group = stored_groups(
        rows,
        [{TO_IMAGE: shares[0]}, {"zero_shot_accuracy": 1.0}, {TO_IMAGE: shares[2]}],
    )
    assert group.keys() == {RETRIEVAL, ZERO_SHOT}
    scores = with_groups(score(rows), group)
    lines = [
        json.loads(json.dumps(row_to_json(r, s)))
        for r, s in zip(rows, scores.per_item, strict=True)
    ]
    again = stored_groups(rows, [line["scores"] for line in lines])
    assert again[RETRIEVAL].n == 4 and again[ZERO_SHOT].n == 1
    (metric,) = again[RETRIEVAL].metrics
    assert metric.value == pytest.approx(100 * 2 / 4) and dict(metric.items) == shares
    assert scores.metrics[TO_IMAGE] == metric.value
    assert scores.n[RETRIEVAL] == 4 and scores.units[TO_IMAGE] == "percent"
    assert scores.metrics["exact_match"] == 100.0  # of the texts, as it was


def test_an_evaluation_without_them_has_no_such_groups() -> None:
    assert stored_groups(ROWS, [{}, {"exact_match": 1.0}, {}]) == {}


def compared(rows, mine, theirs, others=ROWS):
    a = with_groups(score(rows), stored_groups(rows, mine))
    return compare(rows, a, pair(rows, others, where="b"), name="b", others=theirs)


def test_recalls_are_compared_query_by_query_over_images() -> None:
    mine = [{TO_TEXT: 1.0, TO_IMAGE: 1.0}, {}, {TO_TEXT: 1.0, TO_IMAGE: 0.4}]
    theirs = [{TO_TEXT: 1.0, TO_IMAGE: 1.0}, {}, {TO_TEXT: 0.0, TO_IMAGE: 0.2}]
    found = compared(ROWS, mine, stored_groups(ROWS, theirs)).metrics
    to_image = found[TO_IMAGE]
    assert (to_image.a, to_image.b) == pytest.approx((50.0, 100 * 2 / 6))
    assert to_image.difference == pytest.approx(100 / 6)
    # A draw of `one` twice differs by nothing, one of `five` twice by 20.
    assert to_image.interval == pytest.approx((0.0, 20.0))
    assert (to_image.n, to_image.changed, to_image.excludes_zero) == (2, 1, False)
    assert (found[TO_TEXT].difference, found[TO_TEXT].interval) == (50.0, (0.0, 100.0))
    # The texts are compared as ever.
    assert found["exact_match"].difference == 0.0


def test_among_other_candidates_recalls_are_left_out() -> None:
    mine = [{TO_TEXT: 1.0}, {}, {TO_TEXT: 1.0}]
    more = [*ROWS, captioned("two", 2)]
    theirs = stored_groups(ROWS, mine)
    assert TO_TEXT not in compared(ROWS, mine, theirs, others=more).metrics
    assert TO_TEXT not in compared(ROWS, mine, theirs, others=ROWS[:2]).metrics
    assert TO_TEXT in compared(ROWS, mine, theirs).metrics


def test_a_side_without_heads_has_nothing_to_compare() -> None:
    found = compared(ROWS, [{TO_TEXT: 1.0}, {}, {TO_TEXT: 1.0}], {})
    assert TO_TEXT not in found.metrics and "CIDEr" in found.metrics


def test_accuracy_by_prompts_is_a_share_of_its_items() -> None:
    metric = zero_shot_metric(ROWS, {1: 1.0, 2: 0.0})
    assert (metric.value, metric.unit) == (50.0, "percent")
