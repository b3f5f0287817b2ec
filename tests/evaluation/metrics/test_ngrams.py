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
    assert texts.vocabulary == ["a", "b", "c"]


def test_weights_are_counts_by_rarity() -> None:
    sums, rare, known = batch().sums, np.log(3 / 1), np.log(3 / 2)
    # a and b are in one item's references, c in two items'.
    squares = [5 * rare**2, 2 * rare**2, 10 * rare**2, 0, known**2, known**2, 4 * known**2, 0]
    assert sums.squares[0] == pytest.approx(squares, rel=1e-12)  # a few roundings
    # Weights of the prediction are clipped to the reference's: the first has a twice, b once.
    products = [0, 2 * rare**2, 7 * rare**2, 0, 0, 0, 2 * known**2, 0]
    assert sums.products[0] == pytest.approx(products, rel=1e-12)


def test_matches_are_clipped_to_the_reference_that_has_most() -> None:
    assert batch().sums.matches.tolist() == [[3, 0, 1], [2, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_bigrams_do_not_cross_texts() -> None:
    assert (batch().sums.squares[1] > 0).tolist() == [True, True, True, *[False] * 3, True, False]


def test_the_size_of_a_block_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    words = [[f"w{w}" for w in draw.zipf(1.5, size=draw.integers(12)) % 50] for _ in range(60)]
    items = [words[20:22], words[22:30], *([text] for text in words[30:48])]
    one = CaptionBatch.from_tokens(words[:20], items)
    several = CaptionBatch.from_tokens(words[:20], items)
    assert len(list(one.blocks())) == 1 and one.sums.products.any()
    monkeypatch.setattr(ngrams, "_BLOCK", 16)
    assert len(list(several.blocks())) > 3
    for name in ("matches", "squares", "products"):
        assert np.array_equal(getattr(one.sums, name), getattr(several.sums, name))


def test_keys_too_large_for_packing_are_sorted_alike() -> None:
    keys, places = np.array([3, 1, 3, 0, 1]), np.array([2, 4, 5, 7, 9])
    for factor in (1, 1 << 60):
        key, place = sort_by(keys * factor, places)
        assert key.tolist() == [factor * k for k in (0, 1, 1, 3, 3)]
        assert place.tolist() == [7, 4, 9, 2, 5]
