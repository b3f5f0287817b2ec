"""ROUGE_L as the coco-caption toolkit computes it.

Source: Lin 2004, "ROUGE", section 3, with beta 1.2; best precision and best recall over the
references are taken separately: github.com/salaniz/pycocoevalcap 1.2, rouge/rouge.py.
"""

from __future__ import annotations

import numpy as np

from qvft.evaluation.metrics.ngrams import CaptionBatch, FloatArray

BETA = 1.2

_EMPTY = -1


def rouge_l(batch: CaptionBatch) -> FloatArray:
    """(I,) F-measure of the longest common subsequence, from 0 to 1.

    An empty text counts as one empty token, as in the toolkit, so two empty texts score 1.
    """
    ends = np.cumsum(batch.lengths)
    texts = [part.tolist() or [_EMPTY] for part in np.split(batch.tokens, ends[:-1])]
    predictions = [_positions(text) for text in texts[: batch.items]]
    item = batch.item[batch.items :]
    common = np.array(
        [
            _common_subsequence(predictions[owner], text)
            for owner, text in zip(item, texts[batch.items :], strict=True)
        ]
    )
    lengths = np.maximum(batch.lengths, 1)
    precision, recall = np.zeros(batch.items), np.zeros(batch.items)
    np.maximum.at(precision, item, common / lengths[item])
    np.maximum.at(recall, item, common / lengths[batch.items :])
    weight = BETA**2
    value = (1 + weight) * precision * recall / np.maximum(recall + weight * precision, 1e-300)
    return np.where((precision > 0) & (recall > 0), value, 0.0)


def _positions(text: list[int]) -> dict[int, int]:
    """Bits of the places at which each token stands in a text."""
    found: dict[int, int] = {}
    for place, token in enumerate(text):
        found[token] = found.get(token, 0) | 1 << place
    return found


def _common_subsequence(positions: dict[int, int], text: list[int]) -> int:
    """Length of the longest common subsequence of a text and one of which `positions` are given.

    A row of the dynamic programme is an integer, whose bit is 0 where the length grows.

    Source: Hyyroe 2004, "Bit-parallel LCS-length computation revisited".
    """
    full = sum(positions.values())  # a bit for each place
    row = full
    for token in text:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return full.bit_count() - row.bit_count()
