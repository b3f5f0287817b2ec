"""The best and the worst text of each prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError
from qvft.evaluation.pairs.best_and_worst import best_and_worst, require_pairs
from qvft.evaluation.pairs.rows import samples_with

SAMPLE = Sample("s", ImageFile(Path("s.png")), captions=("kept?",), meta={"organ": "lung"})
ROW = Row("q", SAMPLE, "question", "What?", "a red cat", ("a red cat", "cat"), {})


def chosen(*texts: str, metric: str = "token_f1", **options: bool):
    return best_and_worst([ROW], [texts], metric, **options)


def test_the_highest_and_the_lowest_score_make_the_pair() -> None:
    found = chosen("red", "a red cat", "some dog", "a red dog")
    ((row, pair),) = found.pairs
    assert row is ROW
    assert (pair.question, pair.chosen, pair.rejected) == ("What?", "a red cat", "some dog")
    assert pair.meta == {"chosen_score": "1", "rejected_score": "0"}
    assert (found.chosen_scores, found.rejected_scores) == ([1.0], [0.0])


def test_of_equal_scores_the_first_text_counts() -> None:
    ((_, pair),) = chosen("dog", "cat", "a red cat", "bird").pairs
    assert (pair.chosen, pair.rejected) == ("cat", "dog")


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (("dog", "bird"), "ties"),
        (("cat", "Cat.", " cat "), "one_text"),
        (("cat", "", " "), "one_text"),
        ((), "one_text"),
    ],
)
def test_rows_without_a_pair_are_counted(texts: tuple[str, ...], count: str) -> None:
    found = chosen(*texts)
    assert found.pairs == []
    assert {name: getattr(found, name) for name in ("ties", "one_text", "unscored")} == {
        **dict.fromkeys(("ties", "one_text", "unscored"), 0),
        count: 1,
    }
    with pytest.raises(DataError, match="no pair: 1 row with"):
        require_pairs(found, "token_f1")


def test_the_reference_is_chosen_and_no_accepted_text_rejected() -> None:
    found = chosen("cat", "a dog", metric="exact_match", against_reference=True)
    ((_, pair),) = found.pairs
    assert (pair.chosen, pair.rejected) == ("a red cat", "a dog")
    assert chosen("cat", metric="exact_match", against_reference=True).ties == 1


def test_pairs_are_the_only_texts_of_their_samples() -> None:
    other = Row("s", SAMPLE, "caption", None, "a cat", ("a cat",), {})
    found = best_and_worst([ROW, other], [("cat", "dog"), ("a cat", "no")], "exact_match")
    (sample,) = samples_with(found.pairs)
    assert [(one.id, one.question, one.chosen) for one in sample.pairs] == [
        ("q#pair", "What?", "cat"),
        ("s#pair", None, "a cat"),
    ]
    assert (sample.id, sample.captions, sample.meta) == ("s", (), {"organ": "lung"})
