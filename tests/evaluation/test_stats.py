from __future__ import annotations

import numpy as np
import pytest

from qvft.evaluation.stats import bootstrap_mean, paired_difference, resampled_sums


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


def test_sums_of_each_draw_hold_as_many_clusters_as_there_are() -> None:
    sums = resampled_sums(np.ones((6, 1)), list("abcdef"))
    assert sums.shape == (2000, 1)
    assert (sums == 6).all()


def test_paired_difference_of_equal_runs_is_exactly_zero() -> None:
    result = paired_difference([1, 0, 1], [1, 0, 1], clusters=list("abc"))
    assert (result.difference, result.interval, result.changed) == (0.0, (0.0, 0.0), ())


def test_paired_difference_is_b_minus_a_and_names_what_changed() -> None:
    result = paired_difference([0, 0, 1, 1], [1, 0, 1, 0.5], clusters=list("abcd"))
    assert result.difference == pytest.approx(0.125)
    assert result.changed == (0, 3)
    assert result.interval[0] <= 0.125 <= result.interval[1]


def test_runs_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="2 and 1 values"):
        paired_difference([1, 0], [1], clusters=["a", "b"])
