"""Tokenises many captions and numbers their tokens: plain words by numpy, the rest by `pieces`.

Shapes: T texts, W words of a chunk of texts, N tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import count

import numpy as np
import numpy.typing as npt

from qvft.cpu_threads import in_threads
from qvft.evaluation.metrics.ngrams import IntArray, ranges
from qvft.evaluation.metrics.tokenize import pieces, tokens_of_piece
from qvft.evaluation.unicode_letters import composed

_TEXTS = 4096  # in a chunk; its arrays stay in the processor's cache

# By byte of UTF-8. Latin, Greek, Cyrillic, Armenian and Hebrew letters are plain: none is a digit
# or a blank. What stands for a piece begins with a byte that no plain text has.
_PLAIN, _BLANK, _END, _OTHER = range(4)
_KINDS = np.full(256, _PLAIN, dtype=np.uint8)
_KINDS[[*b"0123456789<", *range(0x20), 0x7F, 0xC2, *range(0xD8, 0x100)]] = _OTHER
_KINDS[[ord(" "), ord("\n")]] = _BLANK, _END
_PIECE = "\x7f"

_WORD_BYTES = 16  # of a plain word at most: two machine words
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
_SLOT_BITS = 16
_FACTOR = 0x9E3779B97F4A7C15  # 2^64 / the golden ratio: Knuth's multiplicative hashing


def numbered_tokens(texts: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """Tokens of raw texts, as `tokenize` of the composed text gives them.

    Returns:
        The different tokens in the order they come; (N,) the number of each text's tokens, one text
        after another; (T,) tokens of each text.
    """
    ids: defaultdict[str, int] = defaultdict(count().__next__)
    numbers, sizes = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    chunks = (texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS))
    for words, number, first in in_threads(_words, chunks, tried=1):
        tokens = [[ids[token] for token in tokens_of_piece(word)] for word in words]
        many = np.array([len(own) for own in tokens], dtype=np.int64)
        flat = np.fromiter((token for own in tokens for token in own), dtype=np.int64)
        size = many[number]
        numbers.append(flat[ranges((np.cumsum(many) - many)[number], size)])
        sizes.append(np.add.reduceat(size, first))
    return list(ids), np.concatenate(numbers), np.concatenate(sizes)


def _words(texts: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """The different pieces of texts in the order they come; (W,) the number of each piece; (T,) the
    place of each text's first piece."""
    data, end, first = _bytes(texts)
    start = np.append(0, end[:-1] + 1)
    full_stop = (data[end - 1] == ord(".")) & (data[end] == ord(" "))  # may end an initial
    odd = np.flatnonzero(_KINDS[data[: end[-1]]] == _OTHER)
    at = [odd, start[full_stop | (end - start > _WORD_BYTES)]]
    others = np.unique(np.searchsorted(end[np.append(first[1:], len(end)) - 1], np.concatenate(at)))
    known: defaultdict[str, int] = defaultdict(count().__next__)
    if len(others):
        texts = list(texts)
        for place in others.tolist():
            own = pieces(composed(texts[place]))
            texts[place] = " ".join([f"{_PIECE}{known[piece]}" for piece in own])
        data, end, first = _bytes(texts)
        start = np.append(0, end[:-1] + 1)
    length = end - start
    key = np.ndarray(len(data) - 8, "<u8", data, strides=(1,))
    low = key[start] & _FIRST_BYTES[np.minimum(length, 8)]
    high = key[start + 8] & _FIRST_BYTES[np.maximum(length - 8, 0)]
    same = _first_places(low, high)
    new = same == np.arange(len(same))
    raw, written = data.tobytes(), list(known)
    words = [
        raw[begin:stop].decode() for begin, stop in zip(start[new], end[new], strict=True)
    ]
    words = [written[int(word[1:])] if word[:1] == _PIECE else word for word in words]
    return words, (np.cumsum(new) - 1)[same], first


def _bytes(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], IntArray, IntArray]:
    """Composed texts as bytes of UTF-8 with room behind; (W,) where each word ends; (T,) the place
    of each text's first word."""
    joined = "\n".join(texts)
    if joined.count("\n") >= len(texts):
        joined = "\n".join([text.replace("\n", " ") for text in texts])
    if not joined.isascii():
        joined = composed(joined)
    written = f"{joined}\n".encode(errors="surrogatepass") + bytes(_WORD_BYTES)
    data = np.frombuffer(written, dtype=np.uint8)
    end = np.flatnonzero((data == ord(" ")) | (data == ord("\n")))
    return data, end, np.append(0, np.flatnonzero(data[end] == ord("\n"))[:-1] + 1)


def _first_places(low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64]) -> IntArray:
    """(W,) the place where each word comes first.

    Words are hashed into slots, in which the first one stays. Those that find another word there
    are hashed anew.
    """
    first = np.empty(len(low), dtype=np.int64)
    left = np.arange(len(low))
    slots = np.empty(1 << _SLOT_BITS, dtype=np.int64)
    factors = (np.uint64(_FACTOR**n % (1 << 64)) for n in count(1))
    while len(left):
        mixed = low[left] * next(factors) ^ high[left] * next(factors)
        slot = (mixed * np.uint64(_FACTOR) >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
        slots[slot[::-1]] = left[::-1]
        found = slots[slot]
        same = (low[found] == low[left]) & (high[found] == high[left])
        first[left[same]] = found[same]
        left = left[~same]
    return first
