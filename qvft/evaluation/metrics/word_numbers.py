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
from qvft.evaluation.metrics.ngrams import IntArray, changes, sort_by
from qvft.evaluation.metrics.tokenize import pieces
from qvft.evaluation.metrics.unicode_letters import composed

_TEXTS = 8192  # in a chunk; its arrays stay in the processor's cache

# Kinds of bytes of UTF-8; 0 is plain. Latin, Greek, Cyrillic, Armenian and Hebrew letters are: none
# is a digit or a blank. What stands for a piece begins with a byte that no plain text has.
_BLANK, _END, _OTHER = 1, 2, 3
_OTHERS = (*b"0123456789<", *range(0x20), 0x7F, 0xC2, *range(0xD8, 0x100))
_KINDS = bytearray(_OTHER if byte in _OTHERS else 0 for byte in range(256))
_KINDS[ord(" ")], _KINDS[ord("\n")] = _BLANK, _END
_PIECE = "\x7f"

_WORD_BYTES = 16  # of a plain word at most: two machine words
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
_HASH_BITS = 40


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
    """As `numbered_pieces`, of a chunk; a piece may have several numbers."""
    data, kinds, end, length = _bytes(texts)
    may_join = (data[end - 1] == ord(".")) & (kinds[end] == _BLANK) | (length > _WORD_BYTES)
    other = np.append(np.flatnonzero(kinds == _OTHER), end[may_join])
    known: defaultdict[str, int] = defaultdict(count().__next__)
    if len(other):
        texts = list(texts)
        for place in np.unique(np.searchsorted(np.flatnonzero(kinds == _END), other)).tolist():
            own = pieces(composed(texts[place]))
            texts[place] = " ".join([f"{_PIECE}{known[piece]}" for piece in own])
        data, kinds, end, length = _bytes(texts)
    key = np.ndarray(len(data) - 8, "<u8", data, strides=(1,))  # the eight bytes from each on
    low = key[end - length] & _FIRST_BYTES[np.minimum(length, 8)]
    high = key[end - length + 8] & _FIRST_BYTES[np.maximum(length - 8, 0)]
    first = _first_places(low, high)
    new = first == np.arange(len(first))
    written, of_piece = data.tobytes(), list(known)
    ends = zip((end - length)[new].tolist(), end[new].tolist(), strict=True)
    words = [written[begin:stop].decode() for begin, stop in ends]
    words = [of_piece[int(word[1:])] if word[:1] == _PIECE else word for word in words]
    sizes = np.diff(np.flatnonzero(kinds[end] == _END), prepend=-1)
    return words, (np.cumsum(new) - 1)[first], sizes


def _bytes(
    texts: Sequence[str],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], IntArray, IntArray]:
    """Composed texts as UTF-8, each with a line's end, and room behind; the kind of each byte; (N,)
    the place where each word ends, and its bytes."""
    joined = "\n".join(texts)
    if joined.count("\n") >= len(texts):
        joined = "\n".join([text.replace("\n", " ") for text in texts])
    written = f"{composed(joined)}\n".encode(errors="surrogatepass")
    kinds = np.frombuffer(written.translate(_KINDS), dtype=np.uint8)
    end = np.flatnonzero((kinds == _BLANK) | (kinds == _END))
    data = np.frombuffer(written + bytes(_WORD_BYTES), dtype=np.uint8)
    return data, kinds, end, np.diff(end, prepend=-1) - 1


def _first_places(low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64]) -> IntArray:
    """(N,) the place where each word comes first, by sorting hashes, until no two words share one.

    Source: Knuth, "The Art of Computer Programming", volume 3, section 6.4: multiplicative hashing
    by 2^64 / the golden ratio.
    """
    factors = (np.uint64(0x9E3779B97F4A7C15**n % (1 << 64)) for n in count(1))
    while True:
        mixed = (low * next(factors) ^ high * next(factors)) * next(factors)
        key = (mixed >> np.uint64(64 - _HASH_BITS)).astype(np.int64)
        key, place = sort_by(key, np.arange(len(key)))
        new = np.flatnonzero(changes(key))
        first = np.empty_like(place)
        first[place] = np.repeat(place[new], np.diff(new, append=len(key)))
        if np.array_equal(low, low[first]) and np.array_equal(high, high[first]):
            return first
