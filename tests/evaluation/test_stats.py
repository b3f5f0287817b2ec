from __future__ import annotations

import numpy as np
import pytest

from qvft.evaluation import stats
from qvft.evaluation.stats import (
    bootstrap_mean,
    paired_difference,
    paired_statistic,
    resampled_sums,
)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, images = [0.0, 1.0, 1.0, 0.0, 1.0], ["a", "a", "b", "c", "d"]
    assert bootstrap_mean(values, images, seed=3) == bootstrap_mean(values, images, seed=3)


def test_interval_of_independent_items_is_near_the_normal_one() -> None:
    values = [float(i % 2) for i in range(400)]
    low, high = bootstrap_mean(values, range(400))
    # 0.5 +- 1.96 * 0.5 / sqrt(400); a 2.5 % quantile of 2000 draws wanders by about 0.003.
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.009)


def test_copies_within_an_image_do_not_narrow_the_interval() -> None:
    single = [float(i % 2) for i in range(40)]
    ninefold = [value for value in single for _ in range(9)]
    images = [i for i in range(40) for _ in range(9)]
    # The same images are drawn, and every mean is the same up to rounding.
    assert bootstrap_mean(ninefold, images) == pytest.approx(bootstrap_mean(single, range(40)))


def test_one_image_has_no_interval() -> None:
    assert bootstrap_mean([1.0, 0.0], ["a", "a"]) is None


def test_resamples_that_are_kept_for_the_next_score_are_those_that_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=(300, 2))
    kept = [resampled_sums(values, range(300), seed=seed) for seed in (1, 2, 1, 1)]
    monkeypatch.setattr(stats, "_KEPT", 0)
    drawn = [resampled_sums(values, range(300), seed=seed) for seed in (1, 2, 1, 1)]
    assert np.array_equal(kept, drawn) and not np.array_equal(kept[0], kept[1])


def test_sums_of_each_draw_hold_as_many_clusters_as_there_are() -> None:
    sums = resampled_sums(np.ones((6, 1)), list("abcdef"))
    assert sums.shape == (2000, 1)
    assert (sums == 6).all()


def test_paired_difference_of_equal_runs_is_exactly_zero() -> None:
    result = paired_difference([1, 0, 1], [1, 0, 1], clusters=list("abc"))
    assert (result.difference, result.interval, result.changed) == (0.0, (0.0, 0.0), ())


def test_paired_difference_is_a_minus_b_and_names_what_changed() -> None:
    result = paired_difference([1, 0, 1, 0.5], [0, 0, 1, 1], clusters=list("abcd"))
    assert result.difference == pytest.approx(0.125)
    assert result.changed == (0, 3)
    assert result.interval[0] <= 0.125 <= result.interval[1]


def test_of_two_images_the_interval_ends_at_either_of_them() -> None:
    # A draw takes one image twice with probability 1/4 each, more than the 2.5 % of a tail.
    result = paired_difference([1, 1, 0], [0, 1, 0.5], clusters=["a", "a", "b"])
    assert result.interval == pytest.approx((-0.5, 0.5))


def test_what_is_hard_for_both_does_not_widen_the_interval_of_their_difference() -> None:
    hard = [float(i % 2) for i in range(40)]
    result = paired_difference([value + 0.25 for value in hard], hard, clusters=range(40))
    assert result.interval == (0.25, 0.25)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def test_a_statistic_is_computed_from_the_sums_and_not_from_the_items() -> None:
    a, b = np.array([[1.0, 1.0], [1.0, 3.0]]), np.array([[0.0, 1.0], [1.0, 3.0]])
    result = paired_statistic(a, b, clusters=["x", "y"], value=ratio)
    assert result.difference == pytest.approx(2 / 4 - 1 / 4)
    assert result.interval == pytest.approx((0.0, 1.0))  # twice y, twice x
    assert result.changed == (0,)


def test_draws_without_a_denominator_are_left_out() -> None:
    a, b = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 2.0], [0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        result = paired_statistic(a, b, clusters=["x", "y"], value=ratio)
    assert result.interval == (0.5, 0.5)  # twice y has none


def test_a_statistic_of_equal_counts_differs_by_exactly_nothing() -> None:
    counts = np.array([[1.0, 3.0], [2.0, 7.0], [5.0, 11.0]])
    result = paired_statistic(counts, counts, clusters=list("abc"), value=ratio)
    assert (result.difference, result.interval, result.changed) == (0.0, (0.0, 0.0), ())


def test_runs_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="2 and 1 values"):
        paired_difference([1, 0], [1], clusters=["a", "b"])


def test_counts_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError):  # numpy's
        paired_statistic(np.ones((2, 1)), np.ones((1, 1)), clusters=["a", "b"], value=ratio)
