"""CIDEr-D: of a set of items as the coco-caption toolkit computes it, and of single captions.

Source: Vedantam et al. 2015, "CIDEr", section 5 (CIDEr-D);
github.com/salaniz/pycocoevalcap 1.2, cider/cider_scorer.py; `CorpusCider` with its `df_mode` of a
corpus.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from qvft.evaluation.metrics.ngrams import ORDERS, CaptionBatch, FloatArray

SIGMA = 6.0
SCALE = 10.0

Tokens = Sequence[str]
Ngram = tuple[str, ...]
Vector = tuple[dict[Ngram, float], float]

_KEPT = 1024


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


class CorpusCider:
    """CIDEr-D of single captions with the document frequencies of a corpus, for rewards: those of a
    batch of training, as `cider_d` would count them, mean nothing.

    Args:
        corpus: the tokenised references of each item; an item is a document.
    """

    def __init__(self, corpus: Iterable[Sequence[Tokens]]) -> None:
        self._documents: Counter[Ngram] = Counter()
        items = 0
        for references in corpus:
            items += 1
            self._documents.update({gram for text in references for gram in _counts(text)})
        self._log_items = math.log(max(items, 1))
        # The texts of one image are scored one after another, against the same references.
        self._vectors = lru_cache(maxsize=_KEPT)(self._vectors_of)

    def __call__(self, prediction: Tokens, references: Sequence[Tokens]) -> float:
        """CIDEr-D of a tokenised caption, from 0 to 10."""
        own = self._vectors(tuple(prediction))
        total = 0.0
        for reference in references:
            other = self._vectors(tuple(reference))
            # Bigrams, as in the toolkit.
            difference = max(len(prediction) - 1, 0) - max(len(reference) - 1, 0)
            penalty = math.exp(-(difference**2) / (2 * SIGMA**2))
            total += penalty * sum(map(_similarity, own, other)) / ORDERS
        return SCALE * total / len(references)

    def _vectors_of(self, text: tuple[str, ...]) -> list[Vector]:
        """TF-IDF vector of each order, and its length."""
        vectors: list[dict[Ngram, float]] = [{} for _ in range(ORDERS)]
        for gram, count in _counts(text).items():
            rarity = self._log_items - math.log(max(self._documents[gram], 1))
            vectors[len(gram) - 1][gram] = count * rarity
        return [
            (vector, math.sqrt(sum(weight**2 for weight in vector.values()))) for vector in vectors
        ]


def _counts(text: Tokens) -> Counter[Ngram]:
    return Counter(
        tuple(text[start : start + order])
        for order in range(1, ORDERS + 1)
        for start in range(len(text) - order + 1)
    )


def _similarity(own: Vector, other: Vector) -> float:
    """Clipped cosine of two vectors."""
    (weights, length), (known, other_length) = own, other
    norm = length * other_length
    if not norm:
        return 0.0
    shared = (
        min(weights[gram], weight) * weight for gram, weight in known.items() if gram in weights
    )
    return sum(shared) / norm
