"""N-gram counts of tokenised captions as integers, from which BLEU, ROUGE_L and CIDEr follow.

Shapes: I items, R references of all items, T = I + R texts, E (text, n-gram) pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ORDERS = 4


@dataclass(frozen=True)
class NgramCounts:
    """How often each n-gram of one order stands in each text; sorted by text, then by n-gram.

    Attributes:
        text: (E,) index of the text.
        count: (E,) occurrences, at least 1.
        gram: (E,) id of the n-gram, equal for equal n-grams of all texts.
        key: (E,) `item * size + gram`, where item is the one that the text belongs to.
        size: number of different n-grams, at least 1.
        predictions: number of leading entries that belong to predictions; the rest to references.
        reference_key: (F,) distinct keys of all references, ascending.
        reference_most: (F,) highest count of that n-gram in one reference of the item.
    """

    text: IntArray
    count: IntArray
    gram: IntArray
    key: IntArray
    size: int
    predictions: int
    reference_key: IntArray
    reference_most: IntArray


@dataclass(frozen=True)
class CaptionBatch:
    """Tokenised predictions and references; the texts are all predictions, then all references.

    Attributes:
        tokens: (N,) ids of all texts' tokens, one text after another.
        lengths: (T,) tokens of each text.
        item: (T,) the item each text belongs to; ascending within the references.
    """

    tokens: IntArray
    lengths: IntArray
    item: IntArray
    items: int

    @classmethod
    def from_tokens(
        cls, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
    ) -> CaptionBatch:
        """Numbers the tokens of one prediction and one or more references an item."""
        assert len(predictions) == len(references)
        texts = [*predictions, *(text for group in references for text in group)]
        owners = [np.arange(len(predictions)), np.repeat(
            np.arange(len(references)), [len(group) for group in references]
        )]  # fmt: skip
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        ids: defaultdict[str, int] = defaultdict(count().__next__)
        flat = map(ids.__getitem__, chain.from_iterable(texts))
        return cls(
            np.fromiter(flat, dtype=np.int64, count=int(lengths.sum())),
            lengths,
            np.concatenate(owners).astype(np.int64),
            len(predictions),
        )

    @cached_property
    def ngrams(self) -> list[NgramCounts]:
        """Counts of orders 1 to 4."""
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        to_end = np.repeat(np.cumsum(self.lengths), self.lengths) - np.arange(len(text))
        vocabulary = int(self.tokens.max(initial=0)) + 1
        start, gram, size = np.arange(len(text)), self.tokens, vocabulary
        counts = [self._count(text, gram, size)]
        for order in range(2, ORDERS + 1):
            whole = to_end[start] >= order
            start, gram = start[whole], gram[whole]
            numbers, gram = np.unique(
                gram * vocabulary + self.tokens[start + order - 1], return_inverse=True
            )
            size = max(1, len(numbers))
            counts.append(self._count(text[start], gram, size))
        return counts

    def _count(self, text: IntArray, gram: IntArray, size: int) -> NgramCounts:
        pairs, counted = np.unique(text * size + gram, return_counts=True)
        text, gram = np.divmod(pairs, size)
        key = self.item[text] * size + gram
        predictions = int(np.searchsorted(text, self.items))
        order = np.argsort(key[predictions:], kind="stable")
        reference_key, first = np.unique(key[predictions:][order], return_index=True)
        most = np.maximum.reduceat(counted[predictions:][order], first) if len(first) else first
        return NgramCounts(text, counted, gram, key, size, predictions, reference_key, most)


def lookup(keys: IntArray, wanted: IntArray, values: npt.NDArray) -> npt.NDArray:
    """`values` of the ascending `keys` at each of `wanted`; 0 where a key is not there."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=values.dtype)
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def mean(values: FloatArray) -> float:
    """Mean of the items' values; 0 of none."""
    return float(values.mean()) if len(values) else 0.0
