"""Rows among processes: each row once, an image's rows together."""

from __future__ import annotations

import pytest

from qvft.evaluation.shares import share

IMAGES = ["a", "a", "b", "c", "a", "d", "e", "e", "b"]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_row_is_answered_by_one_process(world: int) -> None:
    shares = [share(IMAGES, rank=rank, world=world) for rank in range(world)]
    assert sorted(number for one in shares for number in one) == list(range(len(IMAGES)))


def test_rows_of_an_image_are_answered_by_one_process_in_order() -> None:
    assert share(IMAGES, rank=0, world=2) == [0, 1, 3, 4, 6, 7]
    assert share(IMAGES, rank=1, world=2) == [2, 5, 8]
