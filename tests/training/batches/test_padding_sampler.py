"""An epoch filled up so that it comes out even among processes."""

from __future__ import annotations

import pytest

from qvft.data.rows import FILLER
from qvft.training.batches.sampler import GroupedSampler, PaddedSampler


def filled(rows: int, multiple: int) -> PaddedSampler:
    return PaddedSampler(
        GroupedSampler([str(i) for i in range(rows)], group_size=1, seed=0), multiple=multiple
    )


@pytest.mark.parametrize(("rows", "fillers"), [(12, 0), (13, 3), (15, 1), (1, 3)])
def test_the_last_step_is_filled_up(rows: int, fillers: int) -> None:
    order = list(filled(rows, 4))
    assert order[rows:] == [FILLER] * fillers
    assert sorted(order[:rows]) == list(range(rows))
    assert len(order) == len(filled(rows, 4))


def test_epochs_are_those_of_the_order_inside() -> None:
    one = filled(13, 4)
    first = list(one)
    one.set_epoch(1)
    assert list(one) != first
    assert sorted(one) == sorted(first)
