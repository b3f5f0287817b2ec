"""CIDEr as the coco-caption toolkit computes it, which is CIDEr-D.

Source: Vedantam et al. 2015, "CIDEr", section 5 (CIDEr-D);
github.com/salaniz/pycocoevalcap 1.2, cider/cider_scorer.py.
"""

from __future__ import annotations

import numpy as np

from qvft.evaluation.metrics.ngrams import ORDERS, CaptionBatch, FloatArray

SIGMA = 6.0
SCALE = 10.0


def cider_d(batch: CaptionBatch) -> FloatArray:
    """(I,) CIDEr-D of each item, from 0 to 10; document frequencies are those of this batch.

    The length that the Gaussian penalty compares counts bigrams only, as in the toolkit, and a
    single item scores 0, because every document frequency then equals the number of documents.
    """
    known, said = ~batch.predicted, batch.predicted
    item = batch.item[known]
    bigrams = np.maximum(batch.lengths - 1, 0)
    difference = bigrams[said][item] - bigrams[known]
    penalty = np.exp(-(difference.astype(np.float64) ** 2) / (2 * SIGMA**2))
    norms, products = np.sqrt(batch.sums.squares), batch.sums.products[:, known]
    lengths = norms[:, said][:, item] * norms[:, known]
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    similarity = sum(cosines) / ORDERS
    total = np.bincount(item, weights=similarity * penalty, minlength=batch.items)
    return SCALE * total / np.bincount(item, minlength=batch.items)
