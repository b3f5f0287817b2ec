"""Captions as integers: what is counted."""

from __future__ import annotations

import numpy as np

from qvft.evaluation.metrics.ngrams import CaptionBatch, NgramCounts

PREDICTIONS = [["a", "a", "b"], [], ["c"]]
REFERENCES = [[["a", "b"], ["b", "a", "a", "a"]], [["c"]], [["c", "c"], []]]


def by_name(grams: NgramCounts) -> dict[tuple[int, int], int]:
    """Occurrences of a token by text and first-seen number of the token."""
    return dict(
        zip(zip(grams.text.tolist(), grams.gram.tolist(), strict=True), grams.count, strict=True)
    )


def test_tokens_are_counted_in_every_text() -> None:
    batch = CaptionBatch.from_tokens(PREDICTIONS, REFERENCES)
    assert batch.lengths.tolist() == [3, 0, 1, 2, 4, 1, 2, 0]
    assert batch.item.tolist() == [0, 1, 2, 0, 0, 1, 2, 2]
    # a, b, c are 0, 1, 2; texts 0 to 2 are predictions.
    assert by_name(batch.ngrams[0]) == {
        (0, 0): 2, (0, 1): 1, (2, 2): 1,
        (3, 0): 1, (3, 1): 1, (4, 0): 3, (4, 1): 1, (5, 2): 1, (6, 2): 2,
    }  # fmt: skip
    assert batch.ngrams[0].predictions == 3


def test_the_most_of_any_reference_is_kept_by_item() -> None:
    grams = CaptionBatch.from_tokens(PREDICTIONS, REFERENCES).ngrams[0]
    most = dict(zip(grams.reference_key.tolist(), grams.reference_most.tolist(), strict=True))
    size = grams.size
    assert most == {0: 3, 1: 1, size + 2: 1, 2 * size + 2: 2}


def test_bigrams_do_not_cross_texts() -> None:
    grams = CaptionBatch.from_tokens(PREDICTIONS, REFERENCES).ngrams[1]
    assert np.bincount(grams.text, weights=grams.count).tolist() == [2, 0, 0, 1, 3, 0, 1]
