"""BLEU-1 to BLEU-4 as the coco-caption toolkit computes them.

Source: Papineni et al. 2002; corpus counts, closest reference length and smoothing constants of
github.com/salaniz/pycocoevalcap 1.2, bleu/bleu_scorer.py.
"""

from __future__ import annotations

import numpy as np

from qvft.evaluation.metrics.ngrams import ORDERS, CaptionBatch, FloatArray, IntArray

# Added to matches and to guesses, so that no precision is exactly zero or undefined.
_TINY, _SMALL = 1e-15, 1e-9

_LENGTH_BITS = 31  # a distance and a length fit one integer


def bleu_counts(batch: CaptionBatch) -> FloatArray:
    """(I, 10) matches of orders 1 to 4, n-grams predicted of orders 1 to 4, two lengths.

    The lengths, in tokens, are the prediction's and that of the reference closest to it.
    """
    length = batch.lengths[batch.predicted, None]
    guesses = np.maximum(0, length - np.arange(ORDERS))
    columns = [batch.sums.matches.T, guesses, length, _closest_lengths(batch)[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float64)


def bleu_of_counts(counts: FloatArray) -> FloatArray:
    """(..., 4) BLEU-1 to 4 of (..., 10) counts, which may be sums over items."""
    matches, guesses = counts[..., :ORDERS], counts[..., ORDERS : 2 * ORDERS]
    length, closest = counts[..., -2:-1], counts[..., -1:]
    precision = (matches + _TINY) / (guesses + _SMALL)
    means = np.cumprod(precision, axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (closest + _SMALL)
    return means * np.exp(np.minimum(0.0, 1 - 1 / ratio))


def _closest_lengths(batch: CaptionBatch) -> IntArray:
    """(I,) length of the reference closest to the prediction's; of two as close, the shorter."""
    item, lengths = batch.item[~batch.predicted], batch.lengths[~batch.predicted]
    distance = np.abs(lengths - batch.lengths[batch.predicted][item])
    first = np.searchsorted(item, np.arange(batch.items))
    return np.minimum.reduceat(distance << _LENGTH_BITS | lengths, first) & (1 << _LENGTH_BITS) - 1
