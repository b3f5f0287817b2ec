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
    """Recall in both directions, and how much of it hangs on ties.

    Attributes:
        image_to_text: by K, percent of images with one of their texts among the K best.
        text_to_image: by K, percent of texts whose image is among the K best.
        image_ranks: (I,) wrong texts that stand before the best right one.
        text_ranks: (T,) images that stand before the right one.
        tied_images: images whose best right text ties with a wrong one.
        tied_texts: texts whose image ties with another.
    """

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    image_ranks: IntArray
    text_ranks: IntArray
    tied_images: int
    tied_texts: int


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
    images, tied_images = image_ranks(similarity, text_image)
    texts, tied_texts = text_ranks(similarity, text_image)
    return RetrievalScores(
        {cutoff: recall(images, cutoff) for cutoff in CUTOFFS},
        {cutoff: recall(texts, cutoff) for cutoff in CUTOFFS},
        images,
        texts,
        tied_images,
        tied_texts,
    )


def recall(ranks: IntArray, cutoff: int) -> float:
    """Percent of queries whose rank, counted from 0, is below the cutoff."""
    return 100 * float(np.mean(ranks < cutoff))


def image_ranks(similarity: npt.ArrayLike, text_image: Sequence[int]) -> tuple[IntArray, int]:
    """(I,) wrong texts that score at least as much as the best right one, and images with a tie.

    Raises:
        ValueError: as `retrieval_scores`.
    """
    matrix, owner = _checked(similarity, text_image)
    return _ranks(matrix, np.arange(len(matrix)), owner)


def text_ranks(similarity: npt.ArrayLike, text_image: Sequence[int]) -> tuple[IntArray, int]:
    """(T,) other images that score at least as much as the right one, and texts with a tie.

    Raises:
        ValueError: as `retrieval_scores`.
    """
    matrix, owner = _checked(similarity, text_image)
    return _ranks(matrix.T, owner, np.arange(len(matrix)))


def _ranks(
    scores: npt.NDArray, query_image: IntArray, candidate_image: IntArray
) -> tuple[IntArray, int]:
    """Per query the wrong candidates that score at least as much as the best right one, and the
    number of queries with a tie; a candidate is right if its image is the query's.
    """
    ranks, tied = np.empty(len(scores), dtype=np.int64), 0
    step = max(1, _CELLS // scores.shape[1])
    for start in range(0, len(scores), step):
        block = scores[start : start + step]
        right = candidate_image == query_image[start : start + step, None]
        best = np.where(right, block, -np.inf).max(axis=1, keepdims=True)
        ranks[start : start + step] = ((block >= best) & ~right).sum(axis=1)
        tied += int(((block == best) & ~right).any(axis=1).sum())
    return ranks, tied


def _checked(similarity: npt.ArrayLike, text_image: Sequence[int]) -> tuple[npt.NDArray, IntArray]:
    matrix, owner = np.asarray(similarity), np.asarray(text_image)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not matrix.size:
        raise ValueError(
            f"similarities of shape {matrix.shape} and type {matrix.dtype}; "
            "expected numbers of shape (images, texts)"
        )
    if np.isnan(matrix).any():
        raise ValueError(f"{int(np.isnan(matrix).sum())} similarities are NaN")
    images, texts = matrix.shape
    if owner.shape != (texts,) or owner.dtype.kind not in "iu":
        raise ValueError(
            f"text_image of shape {owner.shape} and type {owner.dtype}; "
            f"expected the image's row for each of {texts} texts"
        )
    if owner.min() < 0 or owner.max() >= images:
        raise ValueError(
            f"text_image from {owner.min()} to {owner.max()}; expected rows 0 to {images - 1}"
        )
    without = np.setdiff1d(np.arange(images), owner)
    if len(without):
        raise ValueError(f"{len(without)} images have no text, first row {without[0]}")
    return matrix, owner.astype(np.int64)
