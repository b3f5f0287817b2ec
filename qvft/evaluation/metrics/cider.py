"""CIDEr as the coco-caption toolkit computes it, which is CIDEr-D.

Source: Vedantam et al. 2015, "CIDEr", section 5 (CIDEr-D);
github.com/salaniz/pycocoevalcap 1.2, cider/cider_scorer.py.
"""

from __future__ import annotations

import numpy as np

from qvft.evaluation.metrics.ngrams import ORDERS, CaptionBatch, FloatArray, NgramCounts, lookup

SIGMA = 6.0
SCALE = 10.0


def cider_d(batch: CaptionBatch) -> FloatArray:
    """(I,) CIDEr-D of each item, from 0 to 10; document frequencies are those of this batch.

    The length that the Gaussian penalty compares counts bigrams only, as in the toolkit, and a
    single item scores 0, because every document frequency then equals the number of documents.
    """
    item = batch.item[batch.items :]
    bigrams = np.maximum(batch.lengths - 1, 0)
    difference = bigrams[item] - bigrams[batch.items :]
    penalty = np.exp(-(difference.astype(np.float64) ** 2) / (2 * SIGMA**2))
    similarity = sum(_similarity(batch, grams) for grams in batch.ngrams) / ORDERS
    total = np.bincount(item, weights=similarity * penalty, minlength=batch.items)
    return SCALE * total / np.bincount(item, minlength=batch.items)


def _similarity(batch: CaptionBatch, grams: NgramCounts) -> FloatArray:
    """(R,) clipped cosine of TF-IDF vectors of one order, each reference with its prediction."""
    references = len(batch.lengths) - batch.items
    documents = np.bincount(grams.reference_key % grams.size, minlength=grams.size)
    rarity = np.log(batch.items) - np.log(np.maximum(documents, 1))
    weight = grams.count * rarity[grams.gram]
    norm = np.sqrt(np.bincount(grams.text, weights=weight**2, minlength=len(batch.lengths)))
    predicted, other = slice(grams.predictions), slice(grams.predictions, None)
    shared = lookup(grams.key[predicted], grams.key[other], weight[predicted])
    product = np.bincount(
        grams.text[other] - batch.items,
        weights=np.minimum(shared, weight[other]) * weight[other],
        minlength=references,
    )
    length = norm[batch.item[batch.items :]] * norm[batch.items :]
    return np.divide(product, length, out=np.zeros(references), where=length > 0)
