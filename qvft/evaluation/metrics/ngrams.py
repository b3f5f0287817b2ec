"""N-gram counts of tokenised captions as integers, from which BLEU, ROUGE_L and CIDEr follow.

Shapes: I items, T texts, N tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Any

import numpy as np
import numpy.typing as npt

from qvft.cpu_threads import in_threads

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

Summands = tuple[tuple[IntArray, npt.NDArray[Any]], ...]
"""For each sum of `NgramSums`: where to add, and what."""

ORDERS = 4

# Tokens in a block, about; bounds memory, not the result.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class NgramSums:
    """Sums over the n-grams of each order.

    Attributes:
        matches: (4, I) n-grams of the prediction found in a reference, each at most as often as
            there.
        squares: (4, T) squared length of the text's TF-IDF vector.
        products: (4, T) product of a reference's TF-IDF vector and the item's prediction's, each
            weight of the latter clipped to the reference's.
    """

    matches: IntArray
    squares: FloatArray
    products: FloatArray


@dataclass(frozen=True)
class CaptionBatch:
    """Tokenised predictions and references; each item's prediction, then its references.

    Attributes:
        vocabulary: the different tokens, as they come in all predictions, then all references.
        tokens: (N,) ids of all texts' tokens, one text after another.
        lengths: (T,) tokens of each text.
        item: (T,) the item each text belongs to, ascending.
        predicted: (T,) whether the text is a prediction.
    """

    vocabulary: Sequence[str]
    tokens: IntArray
    lengths: IntArray
    item: IntArray
    predicted: npt.NDArray[np.bool_]

    @classmethod
    def from_tokens(
        cls, predictions: Iterable[Sequence[str]], references: Iterable[Iterable[Sequence[str]]]
    ) -> CaptionBatch:
        """Numbers the tokens of one prediction and one or more references an item."""
        texts, known = [*predictions], []
        for own in references:
            before = len(texts)
            texts += own
            known.append(len(texts) - before)
        ids: defaultdict[str, int] = defaultdict(count().__next__)
        tokens = np.fromiter(map(ids.__getitem__, chain.from_iterable(texts)), dtype=np.int64)
        return cls.by_item(list(ids), tokens, np.array([*map(len, texts)], dtype=np.int64), known)

    @classmethod
    def by_item(
        cls, vocabulary: Sequence[str], tokens: IntArray, lengths: IntArray, known: Sequence[int]
    ) -> CaptionBatch:
        """Of texts that come as all predictions, then all references, `known` of each item."""
        items = np.arange(len(known))
        item = np.append(items, np.repeat(items, known))
        order = np.argsort(item, kind="stable")
        first = (np.cumsum(lengths) - lengths)[order]
        item, lengths = item[order], lengths[order]
        predicted = np.diff(item, prepend=-1) == 1
        parts = np.array_split(np.arange(len(item)), len(tokens) // _BLOCK + 1)
        joined = [tokens[ranges(first[own], lengths[own])] for own in parts]
        return cls(vocabulary, np.concatenate(joined), lengths, item, predicted)

    def split(self, parts: Callable[[str], Sequence[str]]) -> CaptionBatch:
        """The batch with each token replaced by its parts: none, one or more."""
        ids: defaultdict[str, int] = defaultdict(count().__next__)
        numbers = [[ids[part] for part in parts(token)] for token in self.vocabulary]
        sizes = np.array([len(own) for own in numbers], dtype=np.int64)
        first = np.cumsum(sizes) - sizes
        flat = np.fromiter(chain.from_iterable(numbers), dtype=np.int64)

        def of_part(part: CaptionBatch) -> tuple[IntArray, IntArray]:
            own = sizes[part.tokens]
            before = np.append(0, np.cumsum(own))
            lengths = np.diff(before[np.append(0, part.ends)])
            return flat[ranges(first[part.tokens], own)], lengths

        tokens, lengths = zip(*in_threads(of_part, self.parts(), tried=0), strict=True)
        joined = np.concatenate(tokens)
        return CaptionBatch(list(ids), joined, np.concatenate(lengths), self.item, self.predicted)

    @property
    def items(self) -> int:
        """The number of items."""
        return int(self.predicted.sum())

    @cached_property
    def text(self) -> IntArray:
        """(N,) index of each token's text."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def place(self) -> IntArray:
        """(N,) number of tokens before each token in its text."""
        return ranges(np.zeros_like(self.lengths), self.lengths)

    @cached_property
    def ends(self) -> IntArray:
        """(T,) the place in `tokens` that follows each text's last token."""
        return np.cumsum(self.lengths)

    def parts(self) -> Iterator[CaptionBatch]:
        """The batch, some items at a time."""
        first = np.flatnonzero(self.predicted)
        begin = (self.ends - self.lengths)[first]
        cuts = first[np.flatnonzero(changes(begin // _BLOCK))[1:]]
        of_texts = [np.split(row, cuts) for row in (self.lengths, self.item, self.predicted)]
        tokens = np.split(self.tokens, (self.ends - self.lengths)[cuts])
        for own, lengths, item, predicted in zip(tokens, *of_texts, strict=True):
            yield CaptionBatch(self.vocabulary, own, lengths, item - item[:1], predicted)

    def blocks(self) -> Iterator[tuple[IntArray, IntArray]]:
        """All tokens' ids in ascending order and their places in `tokens`, which ascend for equal
        ids; a part at a time, and equal ids in one part."""
        bits = len(self.tokens).bit_length()
        packed = self.tokens << bits
        packed += np.arange(len(packed))
        packed.sort()
        counts = np.bincount(self.tokens)
        firsts = (np.cumsum(counts) - counts)[counts > 0]
        for part in np.split(packed, firsts[np.flatnonzero(changes(firsts // _BLOCK))[1:]]):
            yield part >> bits, part & ((1 << bits) - 1)

    @cached_property
    def sums(self) -> NgramSums:
        """What BLEU and CIDEr are computed from."""
        sums = NgramSums(
            np.zeros((ORDERS, self.items), dtype=np.int64),
            *np.zeros((2, ORDERS, len(self.lengths))),
        )
        self.text, self.ends  # noqa: B018  # before threads read them
        for of_block in in_threads(self._of_block, self.blocks(), tried=0):
            # In the order of the n-grams, which fixes that of CIDEr's sums.
            for row, (squares, products, matches) in enumerate(of_block):
                np.add.at(sums.squares[row], *squares)
                np.add.at(sums.products[row], *products)
                np.add.at(sums.matches[row], *matches)
        return sums

    def _of_block(self, block: tuple[IntArray, IntArray]) -> list[Summands]:
        """Of each order's n-grams that begin with the tokens of a block: what they add."""
        key, start = block
        text, new = self.text[start], changes(key)
        found = [self._summands(text, new)]
        for order in range(2, ORDERS + 1):
            whole = np.flatnonzero(self.ends[text] - start >= order)
            gram, start = (np.cumsum(new) - 1)[whole], start[whole]
            following = self.tokens[start + order - 1]
            key, start = sort_by(gram * len(self.vocabulary) + following, start)
            text, new = self.text[start], changes(key)
            found.append(self._summands(text, new))
        return found

    def _summands(self, text: IntArray, new: npt.NDArray[np.bool_]) -> Summands:
        """What n-grams of an order add, one (n-gram, text) pair after another.

        Args:
            text: the text of each n-gram; they are sorted by their tokens' ids, then by text.
            new: whether each differs from the one before.
        """
        pair = np.flatnonzero(new | changes(text))
        count = np.diff(pair, append=len(text))
        text, new = text[pair], new[pair]
        gram = np.cumsum(new) - 1
        # The pairs of an n-gram and an item: the prediction's, if it has the n-gram, comes first.
        first = np.flatnonzero(new | changes(self.item[text]))
        others = np.diff(first, append=len(text)) - 1
        predicted = self.predicted[text[first]]
        described = (~predicted | (others > 0)).astype(np.int64)
        documents = np.add.reduceat(described, np.flatnonzero(new[first]))
        rarity = np.log(self.items) - np.log(np.maximum(documents, 1))
        weight = count * rarity[gram]
        shared = np.flatnonzero(predicted & (others > 0))
        first, others = first[shared], others[shared]
        known = ranges(first + 1, others)
        clipped = np.minimum(np.repeat(weight[first], others), weight[known])
        most = np.maximum.reduceat(count[known], np.cumsum(others) - others)
        return (
            (text, weight**2),
            (text[known], clipped * weight[known]),
            (self.item[text[first]], np.minimum(count[first], most)),
        )


def sort_by(keys: IntArray, places: IntArray) -> tuple[IntArray, IntArray]:
    """Keys in ascending order with their places, which ascend; equal keys keep their order."""
    bits = int(places.max(initial=0)).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits < np.iinfo(np.int64).bits:
        # One integer for both sorts several times as fast as a stable `argsort`.
        packed = keys << bits
        packed |= places
        packed.sort()
        places = packed & ((1 << bits) - 1)
        packed >>= bits
        return packed, places
    order = np.argsort(keys, kind="stable")
    return keys[order], places[order]


def changes(values: IntArray) -> npt.NDArray[np.bool_]:
    """Whether each value differs from the one before it; the first does."""
    found = np.ones(len(values), dtype=np.bool_)
    np.not_equal(values[1:], values[:-1], out=found[1:])
    return found


def ranges(first: IntArray, sizes: IntArray) -> IntArray:
    """`first[k], first[k] + 1, ...` of `sizes[k]` numbers each, one after another."""
    before = np.cumsum(sizes) - sizes
    numbers = np.repeat(first - before, sizes)
    numbers += np.arange(len(numbers))
    return numbers


def mean(values: FloatArray) -> float:
    """Mean of the items' values; 0 of none."""
    return float(values.mean()) if len(values) else 0.0
