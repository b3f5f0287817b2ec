"""Exact search among vectors of images and texts, in blocks. Does not import torch.

Shape letters: N candidates, M queries, Q vectors per image (1 per text), E embedding width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qvft.inference.vector_file import FloatArray, VectorFile

AT_ONCE = 1 << 25
"""Numbers of a block: 128 MiB in float32."""


def similarities(first: FloatArray, second: FloatArray) -> FloatArray:
    """Similarities (N, M) of unit vectors (N, Q, E) with others (M, Q, E) or (M, 1, E).

    Of images with texts: the cosine of the best query, as ITC is trained (BLIP-2, arXiv 2301.12597,
    section 3.1). Of images with images: the mean over queries of the cosine of the same query, 1
    for equal images; the paper defines none. Of texts with texts: the cosine.
    """
    if first.shape[1] == second.shape[1]:
        return first.reshape(len(first), -1) @ second.reshape(len(second), -1).T / first.shape[1]
    if first.shape[1] < second.shape[1]:
        return similarities(second, first).T
    found = np.empty((len(first), len(second)), dtype=np.float32)
    step = max(1, AT_ONCE // max(1, len(first) * first.shape[1]))
    for start in range(0, len(second), step):
        texts = second[start : start + step, 0]
        found[:, start : start + step] = (first @ texts.T).max(axis=1)
    return found


def nearest(
    vectors: VectorFile, queries: FloatArray, top: int
) -> tuple[NDArray[np.int64], FloatArray]:
    """Indices (M, K) of the `top` most similar vectors of each query, and their similarities.

    Ties are in the order of the file. Memory: a block, and similarities (N, M).

    Args:
        queries: unit vectors (M, Q, E), of images or of texts (M, 1, E).
    """
    scores = np.concatenate(
        [similarities(block, queries) for block in vectors.blocks(_rows(vectors))]
    )
    order = np.argsort(-scores, axis=0, kind="stable")[:top]
    return order.T, np.take_along_axis(scores, order, axis=0).T


def near_duplicates(
    vectors: VectorFile, threshold: float, top: int
) -> tuple[int, NDArray[np.int64], FloatArray]:
    """Pairs of different rows with a similarity of at least `threshold`.

    Compares every pair: N * N * Q * E / 2 products.

    Returns:
        How many there are; indices (K, 2) of the `top` most similar ones, and their similarities.
    """
    rows, count = _rows(vectors), 0
    pairs, scores = np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32)
    for i, first in enumerate(vectors.blocks(rows)):
        for j, second in enumerate(vectors.blocks(rows)):
            if j < i:
                continue
            found = similarities(first, second)
            close = np.argwhere(np.triu(found >= threshold, k=1) if i == j else found >= threshold)
            count += len(close)
            scores = np.concatenate([scores, found[close[:, 0], close[:, 1]]])
            pairs = np.concatenate([pairs, close + [i * rows, j * rows]])
            best = np.argsort(-scores, kind="stable")[:top]
            pairs, scores = pairs[best], scores[best]
    return count, pairs, scores


def _rows(vectors: VectorFile) -> int:
    """Rows per block."""
    return max(1, min(4096, AT_ONCE // (vectors.shape[1] * vectors.shape[2])))
