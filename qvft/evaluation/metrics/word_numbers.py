"""Numbers the words of many captions: plain texts by numpy, the others by `tokenize.pieces`.

Shapes: T texts, N words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import count

import numpy as np
import numpy.typing as npt

from qvft.cpu_threads import in_threads
from qvft.evaluation.metrics.ngrams import IntArray
from qvft.evaluation.metrics.tokenize import pieces
from qvft.evaluation.metrics.unicode_letters import composed

_TEXTS = 8192  # in a chunk; its arrays stay in the processor's cache

# By byte of UTF-8. Latin, Greek, Cyrillic, Armenian and Hebrew letters are plain: none is a digit
# or a blank. What stands for a piece begins with a byte that no plain text has.
_PLAIN, _BLANK, _END, _OTHER = range(4)
_OTHERS = (*b"0123456789<", *range(0x20), 0x7F, 0xC2, *range(0xD8, 0x100))
_KINDS = bytearray(_OTHER if byte in _OTHERS else _PLAIN for byte in range(256))
_KINDS[ord(" ")], _KINDS[ord("\n")] = _BLANK, _END
_PIECE = "\x7f"

_WORD_BYTES = 16  # of a plain word at most: two machine words
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
_SLOT_BITS = 16
_FACTOR = 0x9E3779B97F4A7C15  # 2^64 / the golden ratio: Knuth's multiplicative hashing


def numbered_pieces(texts: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """The `pieces` of raw texts, composed.

    Returns:
        The different pieces in the order they come; (N,) the number of each text's pieces, one text
        after another; (T,) pieces of each text.
    """
    ids: defaultdict[str, int] = defaultdict(count().__next__)
    numbers, sizes = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    chunks = (texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS))
    for words, number, size in in_threads(_words, chunks, tried=1):
        numbers.append(np.fromiter(map(ids.__getitem__, words), dtype=np.int64)[number])
        sizes.append(size)
    return list(ids), np.concatenate(numbers), np.concatenate(sizes)


def _words(texts: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """The different pieces of texts in the order they come; (N,) the number of each piece; (T,)
    pieces of each text."""
    written, kinds = _bytes(texts)
    end = np.flatnonzero((kinds == _BLANK) | (kinds == _END))
    start = np.append(0, end[:-1] + 1)
    data = np.frombuffer(written, dtype=np.uint8)
    may_join = (data[end - 1] == ord(".")) & (kinds[end] == _BLANK) | (end - start > _WORD_BYTES)
    other = np.append(np.flatnonzero(kinds == _OTHER), start[may_join])
    known: defaultdict[str, int] = defaultdict(count().__next__)
    if len(other):
        texts = list(texts)
        for place in np.unique(np.searchsorted(np.flatnonzero(kinds == _END), other)).tolist():
            own = pieces(composed(texts[place]))
            texts[place] = " ".join([f"{_PIECE}{known[piece]}" for piece in own])
        written, kinds = _bytes(texts)
        end = np.flatnonzero((kinds == _BLANK) | (kinds == _END))
        start = np.append(0, end[:-1] + 1)
    length = end - start
    key = np.ndarray(len(written) - 8, "<u8", written, strides=(1,))
    low = key[start] & _FIRST_BYTES[np.minimum(length, 8)]
    high = key[start + 8] & _FIRST_BYTES[np.maximum(length - 8, 0)]
    first = _first_places(low, high)
    new = first == np.arange(len(first))
    of_piece = list(known)
    words = [
        written[a:b].decode() for a, b in zip(start[new].tolist(), end[new].tolist(), strict=True)
    ]
    words = [of_piece[int(word[1:])] if word[:1] == _PIECE else word for word in words]
    sizes = np.diff(np.flatnonzero(kinds[end] == _END), prepend=-1)
    return words, (np.cumsum(new) - 1)[first], sizes


def _bytes(texts: Sequence[str]) -> tuple[bytes, npt.NDArray[np.uint8]]:
    """Composed texts as UTF-8, each with a line's end, and room behind; the kind of each byte."""
    joined = "\n".join(texts)
    if joined.count("\n") >= len(texts):
        joined = "\n".join([text.replace("\n", " ") for text in texts])
    written = f"{composed(joined)}\n".encode(errors="surrogatepass")
    kinds = np.frombuffer(written.translate(_KINDS), dtype=np.uint8)
    return written + bytes(_WORD_BYTES), kinds


def _first_places(low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64]) -> IntArray:
    """(N,) the place where each word comes first.

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
