"""BLEU-1 to BLEU-4 as the coco-caption toolkit computes them.

Source: Papineni et al. 2002; corpus counts, closest reference length and smoothing constants of
github.com/salaniz/pycocoevalcap 1.2, bleu/bleu_scorer.py.
"""

from __future__ import annotations

import numpy as np

from qvft.evaluation.metrics.ngrams import (
    ORDERS,
    CaptionBatch,
    FloatArray,
    IntArray,
    NgramCounts,
    lookup,
)

# Added to matches and to guesses, so that no precision is exactly zero or undefined.
_TINY, _SMALL = 1e-15, 1e-9


def bleu(batch: CaptionBatch) -> tuple[FloatArray, FloatArray]:
    """Corpus values (4,) and items' values (I, 4), each from 0 to 1.

    The corpus value comes from summed counts; it is not the mean of the items' values.
    """
    guesses = np.maximum(0, batch.lengths[: batch.items, None] - np.arange(ORDERS))
    matches = np.stack([_clipped_matches(batch, grams) for grams in batch.ngrams], axis=1)
    closest = _closest_lengths(batch)
    length = batch.lengths[: batch.items]
    corpus = _scores(
        matches.sum(0, keepdims=True),
        guesses.sum(0, keepdims=True),
        length.sum(keepdims=True),
        closest.sum(keepdims=True),
    )
    return corpus[0], _scores(matches, guesses, length, closest)


def _scores(
    matches: IntArray, guesses: IntArray, length: IntArray, reference_length: IntArray
) -> FloatArray:
    precision = (matches + _TINY) / (guesses + _SMALL)
    means = np.cumprod(precision, axis=1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    with np.errstate(divide="ignore", over="ignore"):
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return means * penalty[:, None]


def _clipped_matches(batch: CaptionBatch, grams: NgramCounts) -> IntArray:
    """(I,) n-grams of the prediction found in a reference, each at most as often as there."""
    own = slice(grams.predictions)
    limit = lookup(grams.reference_key, grams.key[own], grams.reference_most)
    clipped = np.minimum(grams.count[own], limit)
    total = np.bincount(grams.text[own], weights=clipped, minlength=batch.items)
    return total.astype(np.int64)


def _closest_lengths(batch: CaptionBatch) -> IntArray:
    """(I,) length of the reference closest to the prediction's; of two as close, the shorter."""
    item, lengths = batch.item[batch.items :], batch.lengths[batch.items :]
    distance = np.abs(lengths - batch.lengths[item])
    order = np.lexsort((lengths, distance, item))
    return lengths[order][np.searchsorted(item, np.arange(batch.items))]
