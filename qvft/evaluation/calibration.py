"""Calibration of probabilities: ECE, reliability bins, and risk against coverage.

Shape letters: N items, B resamples, M bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from qvft.evaluation.evaluation_facts import Part
from qvft.evaluation.likelihoods import CANDIDATE_ACC, CANDIDATE_PROBABILITY, PROBABILITY
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import Scores, main_metric, main_score
from qvft.evaluation.stats import FloatArray, percentile_interval, resampled_weights

BINS = 10
COVERAGES = (0.5, 0.8, 0.9)
FIGURES = ("ece", "aurc", *(f"accuracy_at_{100 * one:.0f}" for one in COVERAGES), "accuracy")


class Bin(Part):
    """Answers whose probability is in one tenth of 0 to 1."""

    n: int = Field(description="answers")
    probability: float = Field(description="their mean probability")
    accuracy: float = Field(description="their mean score")


class Calibration(Part):
    """Whether probabilities say which answers are right. All figures are 0 to 1."""

    n: int = Field(description="questions with a probability")
    score: str = Field(description="the metric that says whether an answer is right")
    figures: dict[str, float] = Field(
        description="`ece`: expected calibration error, 10 bins of equal width; `aurc`: area under "
        "the risk-coverage curve (mean error of the k most probable answers, over all k); "
        "`accuracy_at_80`: of the most probable 80 % (also 50 and 90); `accuracy`: of all"
    )
    intervals: dict[str, tuple[float, float]] = Field(
        description="95 % bootstrap interval by figure, whole images drawn; empty for one image"
    )
    bins: list[Bin] = Field(description="bins with answers, from low to high probability")


def calibrations(rows: Sequence[PredictionRow], scores: Scores) -> dict[str, Calibration]:
    """Calibration of `generated` answers, right by their most telling metric, and of ranked
    `candidates`, where they have probabilities."""
    items = zip(rows, scores.per_item, strict=True)
    asked = [(row.image, values) for row, values in items if row.kind == "question"]
    found = {}
    if own := [(image, values) for image, values in asked if PROBABILITY in values]:
        found["generated"] = calibration(
            [float(values[PROBABILITY]) for _, values in own],
            [main_score(values) for _, values in own],
            [image for image, _ in own],
            score=main_metric(own[0][1]) or "",
        )
    if own := [(image, values) for image, values in asked if CANDIDATE_PROBABILITY in values]:
        found["candidates"] = calibration(
            [float(values[CANDIDATE_PROBABILITY]) for _, values in own],
            [float(values[CANDIDATE_ACC]) for _, values in own],
            [image for image, _ in own],
            score=CANDIDATE_ACC,
        )
    return found


def calibration(
    probabilities: Sequence[float], right: Sequence[float], images: Sequence[str], *, score: str
) -> Calibration:
    """Calibration of N probabilities.

    Args:
        right: (N,) score of each answer, 0 to 1.
        images: (N,) image of each, which are resampled whole for the intervals.

    Source: ECE: Guo et al. 2017, arXiv 1706.04599, section 2 (with 15 bins there); AURC: Geifman
    et al. 2019, arXiv 1805.08206, section 3.
    """
    order = np.argsort(-np.array(probabilities), kind="stable")
    p, values = np.array(probabilities)[order], np.array(right, dtype=np.float64)[order]
    member = np.eye(BINS)[np.minimum((p * BINS).astype(int), BINS - 1)]
    figures = _figures(np.ones((1, len(p))), p, values, member)[0]
    weights = resampled_weights([images[place] for place in order])
    drawn = [_figures(one, p, values, member) for one in weights]
    columns = np.concatenate(drawn).T if drawn else ()
    ends = map(percentile_interval, columns)
    means = [(int(inside.sum()), float(inside @ p), float(inside @ values)) for inside in member.T]
    return Calibration(
        n=len(p),
        score=score,
        figures=dict(zip(FIGURES, figures.tolist(), strict=True)),
        intervals=dict(zip(FIGURES, ends, strict=False)),
        bins=[Bin(n=n, probability=a / n, accuracy=b / n) for n, a, b in means if n],
    )


def _figures(
    weights: FloatArray, p: FloatArray, right: FloatArray, member: FloatArray
) -> FloatArray:
    """(B, 6) `FIGURES` of answers sorted by falling probability.

    Args:
        weights: (B, N) how often each answer was drawn.
        p, right: (N,). member: (N, M) 1 in an answer's bin.
    """
    total = weights.sum(axis=1)
    ece = np.abs((weights * (right - p)) @ member).sum(axis=1) / total
    drawn = np.cumsum(weights, axis=1)
    risk = np.cumsum(weights * (1 - right), axis=1) / np.maximum(drawn, 1)
    # Rounded up: with 0.9 of 10 answers, nine, in spite of binary fractions.
    least = [np.ceil(np.round(coverage * total, 9)) for coverage in (*COVERAGES, 1)]
    last = [(drawn >= count[:, None]).argmax(axis=1) for count in least]
    accuracy = [1 - risk[np.arange(len(risk)), place] for place in last]
    return np.stack([ece, (weights * risk).sum(axis=1) / total, *accuracy], axis=1)
