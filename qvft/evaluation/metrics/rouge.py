"""ROUGE_L as the coco-caption toolkit computes it.

Source: Lin 2004, "ROUGE", section 3, with beta 1.2; best precision and best recall over the
references are taken separately: github.com/salaniz/pycocoevalcap 1.2, rouge/rouge.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qvft.cpu_threads import in_threads
from qvft.evaluation.metrics.ngrams import CaptionBatch, FloatArray, IntArray, changes, sort_by

BETA = 1.2

_WORD_BITS = 64


def rouge_l(batch: CaptionBatch) -> FloatArray:
    """(I,) F-measure of the longest common subsequence, from 0 to 1.

    An empty text counts as one empty token, as in the toolkit, so two empty texts score 1.
    """
    return np.concatenate(list(in_threads(_rouge_l, batch.parts(), tried=0)))


def _rouge_l(batch: CaptionBatch) -> FloatArray:
    said = batch.lengths[batch.predicted]
    item, known = batch.item[~batch.predicted], batch.lengths[~batch.predicted]
    common = np.where((said[item] == 0) & (known == 0), 1, 0)
    for dtype, chosen in ((np.uint64, said < _WORD_BITS), (object, said >= _WORD_BITS)):
        if chosen.any():
            common += _common_subsequences(batch, chosen, dtype)
    precision, recall = np.zeros(batch.items), np.zeros(batch.items)
    np.maximum.at(precision, item, common / np.maximum(said, 1)[item])
    np.maximum.at(recall, item, common / np.maximum(known, 1))
    weight = BETA**2
    value = (1 + weight) * precision * recall / np.maximum(recall + weight * precision, 1e-300)
    return np.where((precision > 0) & (recall > 0), value, 0.0)


def _common_subsequences(
    batch: CaptionBatch, chosen: npt.NDArray[np.bool_], dtype: npt.DTypeLike
) -> IntArray:
    """(R,) length of each reference's longest common subsequence with its item's prediction.

    A row of the dynamic programme is an integer, whose bit is 0 where the length grows. The next
    token of all references at once moves their rows; a token that is not in the prediction does
    not, so it is passed over.

    Args:
        chosen: (I,) the items to compare; the others have 0.
        dtype: of a row: `object`, Python's integers, for predictions of 64 tokens or more.

    Source: Hyyroe 2004, "Bit-parallel LCS-length computation revisited".
    """
    one = np.ones((), dtype=dtype)
    key, token = sort_by(batch.tokens, np.arange(len(batch.tokens)))
    own = chosen[batch.item[batch.text[token]]]
    token, places = _matches(batch, key[own], token[own], one)
    in_text = np.argsort(token)
    text, places = batch.text[token[in_text]], places[in_text]
    new = np.flatnonzero(changes(text))
    step = np.arange(len(text)) - np.repeat(new, np.diff(new, append=len(text)))
    full = (one << batch.lengths[batch.predicted][batch.item].astype(dtype)) - one
    row = full.copy()
    for now in np.split(np.argsort(step, kind="stable"), np.cumsum(np.bincount(step))):
        matches = row[text[now]] & places[now]
        before = row[text[now]]
        row[text[now]] = ((before + matches) | (before - matches)) & full[text[now]]
    length = np.bitwise_count(full).astype(np.int64) - np.bitwise_count(row).astype(np.int64)
    return np.where(chosen[batch.item], length, 0)[~batch.predicted]


def _matches(
    batch: CaptionBatch, key: IntArray, token: IntArray, one: npt.NDArray[Any]
) -> tuple[IntArray, npt.NDArray[Any]]:
    """Of sorted tokens that are in a reference and in its prediction: where they stand in
    `tokens`, and a bit for each place that they have in the prediction."""
    text = batch.text[token]
    predicted = batch.predicted[text]
    first = np.flatnonzero(changes(key) | changes(batch.item[text]))
    place = np.where(predicted, one << batch.place[token].astype(one.dtype), one - one)
    places = np.repeat(np.bitwise_or.reduceat(place, first), np.diff(first, append=len(text)))
    found = np.flatnonzero((places != 0) & ~predicted)
    return token[found], places[found]
