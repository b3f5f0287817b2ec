"""ROUGE_L as the coco-caption toolkit computes it.

Source: Lin 2004, "ROUGE", section 3, with beta 1.2; best precision and best recall over the
references are taken separately: github.com/salaniz/pycocoevalcap 1.2, rouge/rouge.py.
"""

from __future__ import annotations

import numpy as np

from qvft.evaluation.metrics.ngrams import CaptionBatch, FloatArray, IntArray

BETA = 1.2

# Cells of the dynamic programme's rows held at once; bounds memory, not the result.
_CELLS = 1 << 21
_NO_PREDICTION, _NO_REFERENCE, _EMPTY = -1, -2, -3


def rouge_l(batch: CaptionBatch) -> FloatArray:
    """(I,) F-measure of the longest common subsequence, from 0 to 1.

    An empty text counts as one empty token, as in the toolkit, so two empty texts score 1.
    """
    item = batch.item[batch.items :]
    lengths = np.maximum(batch.lengths, 1)
    common = _common_subsequences(batch, item, lengths)
    precision, recall = np.zeros(batch.items), np.zeros(batch.items)
    np.maximum.at(precision, item, common / lengths[item])
    np.maximum.at(recall, item, common / lengths[batch.items :])
    weight = BETA**2
    value = (1 + weight) * precision * recall / np.maximum(recall + weight * precision, 1e-300)
    return np.where((precision > 0) & (recall > 0), value, 0.0)


def _common_subsequences(batch: CaptionBatch, item: IntArray, lengths: IntArray) -> IntArray:
    """(R,) length of the longest common subsequence of each reference and its prediction."""
    starts = np.cumsum(batch.lengths) - batch.lengths
    result = np.zeros(len(item), dtype=np.int64)
    longest = np.maximum(lengths[item], lengths[batch.items :])
    order = np.argsort(longest, kind="stable")
    done = 0
    while done < len(order):
        # Texts of similar length share a block, so that little of it is padding.
        block = order[done : done + max(1, _CELLS // int(longest[order[done]] + 8) // 8)]
        predictions = _padded(batch, starts, item[block], _NO_PREDICTION)
        references = _padded(batch, starts, block + batch.items, _NO_REFERENCE)
        row = np.zeros((references.shape[0] + 1, len(block)), dtype=np.int32)
        for tokens in predictions:
            extended = row[:-1] + (references == tokens)
            row[1:] = np.maximum.accumulate(np.maximum(row[1:], extended), axis=0)
        result[block] = row[-1]
        done += len(block)
    return result


def _padded(batch: CaptionBatch, starts: IntArray, texts: IntArray, padding: int) -> IntArray:
    """(longest, texts) token ids, padded at the end; an empty text is one `_EMPTY` token."""
    lengths = batch.lengths[texts]
    width = max(1, int(lengths.max(initial=0)))
    place = np.arange(width)[:, None]
    inside = place < lengths
    index = np.where(inside, starts[texts] + place, 0)
    known = batch.tokens[index] if len(batch.tokens) else index
    return np.where(inside, known, np.where((lengths == 0) & (place == 0), _EMPTY, padding))
