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
Ends = tuple[float, float] | None


class Bin(Part):
    """Items whose probability is in a tenth of 0 to 1."""

    n: int = Field(description="items")
    probability: float = Field(description="their mean probability, 0 to 1")
    accuracy: float = Field(description="their mean score, 0 to 1")


class Selective(Part):
    """Accuracy if only the items with the highest probabilities are answered."""

    coverage: float = Field(description="share of the items that are answered, 0 to 1")
    accuracy: float = Field(description="their mean score, 0 to 1")
    interval: Ends = Field(description="95 %, whole images drawn; null with one image")


class Calibration(Part):
    """How well a probability predicts whether an answer is right."""

    n: int = Field(description="questions with a probability")
    score: str = Field(description="the metric that says whether an answer is right")
    accuracy: float = Field(description="its mean, 0 to 1")
    ece: float = Field(
        description="expected calibration error, 10 bins of equal width: mean difference of "
        "probability and accuracy, 0 to 1"
    )
    ece_interval: Ends = Field(description="95 %, whole images drawn; null with one image")
    aurc: float = Field(
        description="area under the risk-coverage curve: mean error of the k most probable "
        "answers over all k, 0 to 1"
    )
    aurc_interval: Ends = Field(description="95 %, whole images drawn; null with one image")
    selective: list[Selective] = Field(description="accuracy at 50, 80 and 90 % coverage")
    bins: list[Bin] = Field(description="bins with items, from low to high probability")


def calibrations(rows: Sequence[PredictionRow], scores: Scores) -> dict[str, Calibration]:
    """Calibration of generated answers (`generated`: by their most telling metric) and of ranked
    ones (`candidates`), where they have a probability."""
    found = {}
    for name, key in (("generated", PROBABILITY), ("candidates", CANDIDATE_PROBABILITY)):
        chosen = [
            index
            for index, values in enumerate(scores.per_item)
            if key in values and rows[index].kind == "question"
        ]
        if chosen:
            own = [scores.per_item[index] for index in chosen]
            generated = key == PROBABILITY
            found[name] = calibration(
                [float(values[key]) for values in own],
                [main_score(one) if generated else float(one[CANDIDATE_ACC]) for one in own],
                [rows[index].image for index in chosen],
                score=(main_metric(own[0]) or "") if generated else CANDIDATE_ACC,
            )
    return found


def calibration(
    probabilities: Sequence[float], right: Sequence[float], images: Sequence[str], *, score: str
) -> Calibration:
    """Calibration of N probabilities.

    Args:
        right: (N,) score of each item, 0 to 1.
        images: (N,) image of each, which are resampled whole for the intervals.

    Source: ECE: Guo et al. 2017, arXiv 1706.04599, section 2 (with 15 bins there); AURC: Geifman
    et al. 2019, arXiv 1805.08206, section 3.
    """
    order = sorted(range(len(right)), key=lambda place: -probabilities[place])
    p, values = np.array(probabilities)[order], np.array(right, dtype=np.float64)[order]
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    member = np.eye(BINS)[bins]
    figures = _figures(np.ones((1, len(p))), p, values, member)[0]
    parts = [
        _figures(weights, p, values, member)
        for weights in resampled_weights([images[place] for place in order])
    ]
    ends: list[Ends] = [None] * len(figures)
    if parts:
        ends = [percentile_interval(column) for column in np.concatenate(parts).T]
    own = [(int(bins_n), bins == number) for number, bins_n in enumerate(member.sum(axis=0))]
    return Calibration(
        n=len(p),
        score=score,
        accuracy=float(values.mean()),
        ece=float(figures[0]),
        ece_interval=ends[0],
        aurc=float(figures[1]),
        aurc_interval=ends[1],
        selective=[
            Selective(coverage=coverage, accuracy=float(accuracy), interval=interval)
            for coverage, accuracy, interval in zip(COVERAGES, figures[2:], ends[2:], strict=True)
        ],
        bins=[
            Bin(n=n, probability=float(p[inside].mean()), accuracy=float(values[inside].mean()))
            for n, inside in own
            if n
        ],
    )


def _figures(
    weights: FloatArray, p: FloatArray, right: FloatArray, member: FloatArray
) -> FloatArray:
    """(B, 5) ECE, AURC, and accuracy at each coverage, of items sorted by falling probability.

    Args:
        weights: (B, N) how often each item was drawn.
        p, right: (N,). member: (N, M) 1 in an item's bin.
    """
    total = weights.sum(axis=1)
    ece = np.abs((weights * (right - p)) @ member).sum(axis=1) / total
    drawn = np.cumsum(weights, axis=1)
    risk = np.cumsum(weights * (1 - right), axis=1) / np.maximum(drawn, 1)
    aurc = (weights * risk).sum(axis=1) / total
    each = np.arange(len(weights))
    # Rounded up: with 0.9 of 10 items, nine, in spite of binary fractions.
    least = [np.ceil(np.round(coverage * total, 9)) for coverage in COVERAGES]
    last = [(drawn >= count[:, None]).argmax(axis=1) for count in least]
    return np.stack([ece, aurc, *(1 - risk[each, place] for place in last)], axis=1)
