"""Recall at K of image-text retrieval, in both directions.

Shapes: I images, T texts. An image has one or more texts, a text belongs to one image.

Ties count against the model: a candidate that is wrong and scores as much as the right one stands
before it. So the figure does not depend on the order of the candidates, and a model that scores all
pairs alike finds nothing. Published code sorts with `numpy.argsort` and reverses, which puts equal
scores into an order that the sort happens to leave; where no scores are equal, both agree.

Source: Karpathy and Fei-Fei 2015, "Deep Visual-Semantic Alignments", section 4.1 (recall at K over
five texts per image); BLIP's and LAVIS' `itm_eval` (github.com/salesforce/LAVIS,
lavis/tasks/retrieval.py) for the best-ranked text of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

CUTOFFS = (1, 5, 10)
DEFINITION = (
    "recall_at_k/v1: share of queries with a right candidate among the k best; an image is right "
    "with any of its texts; candidates that tie with the right one stand before it."
)

# Cells of the similarity matrix compared at once; bounds memory, not the result.
_CELLS = 1 << 24


@dataclass(frozen=True)
class RetrievalScores:
    """Recall in both directions.

    Attributes:
        image_to_text: by K, percent of images with one of their texts among the K best.
        text_to_image: by K, percent of texts whose image is among the K best.
        image_ranks, text_ranks: as `image_ranks` and `text_ranks`.
    """

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    image_ranks: IntArray
    text_ranks: IntArray


def retrieval_scores(similarity: npt.ArrayLike, text_image: Sequence[int]) -> RetrievalScores:
    """Recall at 1, 5 and 10, image to text and text to image, from one matrix of similarities.

    Where the two directions have matrices of their own, as after re-ranking the best candidates,
    use `image_ranks` and `text_ranks` with each.

    Args:
        similarity: (I, T), higher is more alike; -inf for pairs that were not scored.
        text_image: (T,) the row of the image that each text belongs to.

    Raises:
        ValueError: no matrix of numbers, NaN in it, a text without its image's row, or an image
            without a text.
    """
    images, texts = image_ranks(similarity, text_image), text_ranks(similarity, text_image)
    image_to_text, text_to_image = (
        {cutoff: 100 * float(np.mean(ranks < cutoff)) for cutoff in CUTOFFS}
        for ranks in (images, texts)
    )
    return RetrievalScores(image_to_text, text_to_image, images, texts)


def image_ranks(similarity: npt.ArrayLike, text_image: Sequence[int]) -> IntArray:
    """(I,) wrong texts that score at least as much as the image's best right one."""
    matrix, owner = _checked(similarity, text_image)
    return _ranks(matrix, np.arange(len(matrix)), owner)


def text_ranks(similarity: npt.ArrayLike, text_image: Sequence[int]) -> IntArray:
    """(T,) other images that score at least as much as the text's own."""
    matrix, owner = _checked(similarity, text_image)
    return _ranks(matrix.T, owner, np.arange(len(matrix)))


def _ranks(scores: npt.NDArray, query_image: IntArray, candidate_image: IntArray) -> IntArray:
    """Per query, the wrong candidates that score at least as much as the best right one; a
    candidate is right if its image is the query's.
    """
    ranks = np.empty(len(scores), dtype=np.int64)
    step = max(1, _CELLS // scores.shape[1])
    for start in range(0, len(scores), step):
        block = scores[start : start + step]
        right = candidate_image == query_image[start : start + step, None]
        best = np.where(right, block, -np.inf).max(axis=1, keepdims=True)
        ranks[start : start + step] = ((block >= best) & ~right).sum(axis=1)
    return ranks


def _checked(similarity: npt.ArrayLike, text_image: Sequence[int]) -> tuple[npt.NDArray, IntArray]:
    matrix, owner = np.asarray(similarity), np.asarray(text_image)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not matrix.size:
        raise ValueError(f"similarities of shape {matrix.shape}; expected numbers (images, texts)")
    if np.isnan(matrix).any():
        raise ValueError(f"{int(np.isnan(matrix).sum())} similarities are NaN")
    images, texts = matrix.shape
    is_rows = owner.shape == (texts,) and owner.dtype.kind in "iu"
    if not is_rows or owner.min() < 0 or owner.max() >= images:
        raise ValueError(f"text_image {owner}; expected a row below {images} for {texts} texts")
    without = np.setdiff1d(np.arange(images), owner)
    if len(without):
        raise ValueError(f"{len(without)} images have no text, first row {without[0]}")
    return matrix, owner.astype(np.int64)
