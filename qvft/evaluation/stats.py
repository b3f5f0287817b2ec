"""Bootstrap confidence intervals, clustered by image.

Questions about one image are not independent, so images are resampled with replacement, with all
their items. Shape letters: N items, C clusters, K columns, B resamples.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13
(percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95

# Resamples in memory at once; bounds memory, not the result.
_DRAWS = 1 << 22
# Resamples that are kept for the next score, in bytes.
_KEPT = 1 << 27


@dataclass(frozen=True)
class PairedDifference:
    """Paired difference of two runs on the same items.

    Attributes:
        difference: the figure of A minus the figure of B: positive where A's is higher.
        interval: 95 %, of the difference; None with fewer than two clusters.
        changed: indices of the items whose scores differ.
    """

    difference: float
    interval: tuple[float, float] | None
    n: int
    changed: tuple[int, ...]


def bootstrap_mean(
    values: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of `values`; None with fewer than two clusters.

    Args:
        values: (N,) one per item.
        clusters: (N,) cluster of each item: its image.
    """
    columns = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
    sums = resampled_sums(columns, clusters, seed=seed)
    return None if sums is None else percentile_interval(sums[:, 0] / sums[:, 1])


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, clusters: Sequence[Hashable], seed: int = 0
) -> PairedDifference:
    """Mean of A minus mean of B on the same items, which are resampled together.

    Raises:
        ValueError: the two runs or the clusters differ in length.
    """
    if not len(a) == len(b) == len(clusters):
        raise ValueError(f"{len(a)} and {len(b)} values for {len(clusters)} items")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return PairedDifference(
        float(difference.mean()) if len(a) else 0.0,
        bootstrap_mean(difference.tolist(), clusters, seed=seed),
        len(a),
        tuple(map(int, np.flatnonzero(difference))),
    )


def paired_statistic(
    a: FloatArray,
    b: FloatArray,
    *,
    clusters: Sequence[Hashable],
    value: Callable[[FloatArray], FloatArray],
    seed: int = 0,
) -> PairedDifference:
    """As `paired_difference`, for a statistic of summed counts, such as BLEU.

    Args:
        value: sums (..., K) to statistics (...); resamples with NaN are left out.
    """
    width = a.shape[1]
    sums = resampled_sums(np.concatenate([a, b], axis=1), clusters, seed=seed)
    interval = None
    if sums is not None:
        drawn = value(sums[:, :width]) - value(sums[:, width:])
        # Equal sums have difference exactly 0, so an interval may end at 0.
        same = (sums[:, :width] == sums[:, width:]).all(axis=1)
        drawn = np.where(same, 0.0 * drawn, drawn)
        drawn = drawn[np.isfinite(drawn)]
        interval = percentile_interval(drawn) if len(drawn) else None
    return PairedDifference(
        float(value(a.sum(axis=0)) - value(b.sum(axis=0))),
        interval,
        len(a),
        tuple(map(int, np.flatnonzero((a != b).any(axis=1)))),
    )


def resampled_sums(
    columns: FloatArray, clusters: Sequence[Hashable], *, seed: int = 0
) -> FloatArray | None:
    """(B, K) sums of the columns (N, K) over each resample of C clusters; None if C is below two.

    A statistic that is not a mean, such as corpus BLEU, is computed from each row of the result.
    """
    index, size = _numbered(clusters)
    if size < 2:
        return None
    totals = np.zeros((size, columns.shape[1]))
    np.add.at(totals, index, columns)
    return np.concatenate([times @ totals for times in _times(size, seed)])


def resampled_weights(clusters: Sequence[Hashable], *, seed: int = 0) -> Iterator[FloatArray]:
    """(b, N) how often each item is in a resample, in chunks of the resamples of `resampled_sums`;
    nothing if there are fewer than two clusters. For statistics that are not of sums.
    """
    index, size = _numbered(clusters)
    return (times[:, index].astype(float) for times in _times(size, seed)) if size > 1 else iter(())


def _numbered(clusters: Sequence[Hashable]) -> tuple[list[int], int]:
    """Number of each item's cluster, and how many there are."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(cluster, len(numbers)) for cluster in clusters], len(numbers)


def _times(size: int, seed: int) -> Iterator[npt.NDArray[np.integer]]:
    """(b, C) how often each cluster is drawn, in chunks of the resamples."""
    return iter(_kept_times(size, seed)) if RESAMPLES * size <= _KEPT else _drawn(size, seed)


@lru_cache(maxsize=1)
def _kept_times(size: int, seed: int) -> list[npt.NDArray[np.integer]]:
    """All of `_times`, as the scores of the same items ask for them one after another."""
    return [chunk.astype(np.min_scalar_type(chunk.max())) for chunk in _drawn(size, seed)]


def _drawn(size: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWS // size)
    for start in range(0, RESAMPLES, step):
        draws = generator.integers(size, size=(min(step, RESAMPLES - start), size))
        drawn = np.arange(len(draws))[:, None] * size + draws
        yield np.bincount(drawn.ravel(), minlength=len(draws) * size).reshape(-1, size)


def percentile_interval(values: FloatArray) -> tuple[float, float]:
    """Bounds of the middle 95 % of `values`."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
