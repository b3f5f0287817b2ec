"""Captions as integers: what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from qvft.evaluation.metrics import ngrams
from qvft.evaluation.metrics.ngrams import CaptionBatch, sort_by

PREDICTIONS = [["a", "a", "b"], [], ["c"]]
REFERENCES = [[["a", "b"], ["b", "a", "a", "a"]], [["c"]], [["c", "c"], []]]


def batch() -> CaptionBatch:
    return CaptionBatch.from_tokens(PREDICTIONS, REFERENCES)


def test_tokens_are_counted_in_every_text() -> None:
    texts = batch()
    # Each item's prediction, then its references.
    assert texts.lengths.tolist() == [3, 2, 4, 0, 1, 1, 2, 0]
    assert texts.item.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert np.flatnonzero(texts.predicted).tolist() == [0, 3, 5]
    order, grams = next(texts.ngrams())
    assert order == 1 and texts.vocabulary == ["a", "b", "c"]
    pairs = zip(grams.gram.tolist(), grams.text.tolist(), grams.count.tolist(), strict=True)
    assert list(pairs) == [
        (0, 0, 2), (0, 1, 1), (0, 2, 3), (1, 0, 1), (1, 1, 1), (1, 2, 1),
        (2, 4, 1), (2, 5, 1), (2, 6, 2),
    ]  # fmt: skip
    # The first and third item's predictions share a, b and c with two, two and one reference.
    assert (grams.said.tolist(), grams.known.tolist()) == ([0, 3, 7], [2, 2, 1])
    assert grams.documents.tolist() == [1, 1, 2]


def test_matches_are_clipped_to_the_reference_that_has_most() -> None:
    assert batch().sums.matches.tolist() == [[3, 0, 1], [2, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_bigrams_do_not_cross_texts() -> None:
    _, grams = list(batch().ngrams())[1]
    assert np.bincount(grams.text, weights=grams.count).tolist() == [2, 1, 3, 0, 0, 0, 1]


def test_the_size_of_a_block_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    words = [[f"w{w}" for w in draw.zipf(1.5, size=draw.integers(12)) % 50] for _ in range(60)]
    items = [words[20:22], words[22:30], *([text] for text in words[30:48])]
    one = CaptionBatch.from_tokens(words[:20], items)
    several = CaptionBatch.from_tokens(words[:20], items)
    assert len(list(one.ngrams())) == ngrams.ORDERS and one.sums.products.any()
    monkeypatch.setattr(ngrams, "_BLOCK", 16)
    assert len(list(several.ngrams())) > 3 * ngrams.ORDERS
    for name in ("matches", "squares", "products"):
        assert np.array_equal(getattr(one.sums, name), getattr(several.sums, name))


def test_keys_too_large_for_packing_are_sorted_alike() -> None:
    keys, places = np.array([3, 1, 3, 0, 1]), np.array([2, 4, 5, 7, 9])
    for factor in (1, 1 << 60):
        key, place = sort_by(keys * factor, places)
        assert key.tolist() == [factor * k for k in (0, 1, 1, 3, 3)]
        assert place.tolist() == [7, 4, 9, 2, 5]
