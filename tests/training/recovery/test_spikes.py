"""What counts as a spike."""

from __future__ import annotations

import pytest

from qvft.recipe.train import Spike
from qvft.training.recovery.spikes import spike_limit

RULE = Spike(policy="skip", window=8, deviations=4.0, factor=1.5)
LOSSES = [1.0, 1.1, 0.9, 1.2, 0.8]
"""Median 1.0; deviations 0, 0.1, 0.1, 0.2, 0.2, whose median is 0.1."""


def test_the_limit_is_so_many_deviations_above_the_median() -> None:
    # 1 + 4 * 1.4826 * 0.1; rounding of the losses alone
    assert spike_limit(RULE, LOSSES) == pytest.approx(1.59304, abs=1e-12)


def test_a_loss_that_hardly_moves_is_held_against_the_factor() -> None:
    assert spike_limit(RULE, [1.0] * 5) == 1.5


def test_spikes_in_the_window_leave_the_limit_nearly_where_it_is() -> None:
    # median 1.1; deviations 0, 0.1, 0.1, 0.2, 0.2, 0.3, 2 * 98.9: their median is 0.2
    assert spike_limit(RULE, [*LOSSES[:4], 0.8, 100.0, 100.0]) == pytest.approx(1.1 + 4 * 0.29652)


def test_a_loss_that_has_risen_for_good_is_no_spike_any_more() -> None:
    assert spike_limit(RULE, [1.0] * 3 + [5.0] * 5) == 7.5


def test_nothing_is_said_before_half_the_window_is_known() -> None:
    assert spike_limit(RULE, [1.0] * 3) is None
    assert spike_limit(RULE, [1.0] * 4) is not None


def test_off_has_no_limit() -> None:
    assert spike_limit(Spike(policy="off", window=8), LOSSES) is None
