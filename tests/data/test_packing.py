"""Packed rows: every token has its place, and nothing stands twice that may stand once."""

from __future__ import annotations

import random

import pytest
import torch

from qvft.data.collate import pad_rows
from qvft.data.packing import packed
from qvft.models.packed import Packing


def test_what_rows_of_an_owner_begin_with_stands_once() -> None:
    layout = packed([[7, 7, 1, 2], [7, 7, 1, 3, 4], [7, 7, 1]], [0, 0, 0], budget=9)
    assert layout["packed_source"].tolist() == [[0, 1, 2, 3, 8, 9]]
    assert layout["packed_positions"].tolist() == [[0, 1, 2, 3, 3, 4]]
    assert layout["packed_text"].tolist() == [[-1, -1, -1, 0, 1, 1]]
    assert layout["packed_place"].tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 4, 5], [0, 1, 2, 0, 0]]


def test_equal_beginnings_of_two_owners_stay_apart() -> None:
    layout = packed([[7, 7, 1], [7, 7, 2], [7]], [0, 1, 2], budget=6)
    assert layout["packed_source"].tolist() == [[0, 1, 2, 3, 4, 5, 6]]
    assert layout["packed_positions"].tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    assert layout["packed_owner"].tolist() == [[0, 0, 0, 1, 1, 1, 2]]


def test_rows_are_filled_to_the_budget() -> None:
    rows = [[index] * length for index, length in enumerate((5, 4, 3, 3, 2, 1))]
    layout = packed(rows, range(6), budget=6)
    assert layout["packed_source"].shape == (3, 6)
    assert int((layout["packed_owner"] == -1).sum()) == 0


def test_rows_are_no_wider_than_their_number_asks() -> None:
    """Two rows of ten tokens, where one full row and one half empty would have room for them."""
    rows = [[index] * 5 for index in range(4)]
    layout = packed(rows, range(4), budget=16)
    assert layout["packed_source"].shape == (2, 10)


def test_rows_of_about_the_budget_are_paired() -> None:
    """Each in a row of its own, a quarter of the positions would be padding."""
    rows = [[index] * length for index, length in enumerate((60, 50, 40, 30))]
    assert packed(rows, range(4), budget=50)["packed_source"].shape == (2, 90)
    assert packed(rows, range(4), budget=50, most=60)["packed_source"].shape == (4, 60)


def test_a_group_above_the_budget_stands_whole() -> None:
    layout = packed([[1, 2, 3, 4], [1, 2, 5, 6]], [0, 0], budget=3)
    assert layout["packed_source"].shape == (1, 6)


def test_long_texts_of_an_image_are_split() -> None:
    """In one row of 302, two thirds of the positions that each attends to would be masked."""
    rows = [[9, 9, *[index] * 100] for index in range(3)]
    assert packed(rows, [0, 0, 0], budget=4)["packed_source"].shape == (3, 102)
    assert packed(rows, [0, 0, 0], budget=400)["packed_source"].shape == (1, 302)


def test_the_texts_of_an_image_with_twice_as_many_are_split() -> None:
    """Four images with two rows of 2 + 3 tokens each, and one with four: 14 tokens, else 8."""
    owners = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    rows = [[9, 9, index, 0, 0] for index in range(len(owners))]
    layout = packed(rows, owners, budget=1)
    assert layout["packed_source"].shape == (6, 8)
    assert int((layout["packed_owner"] == -1).sum()) == 0
    assert len({tuple(line) for line in layout["packed_owner"].tolist()}) == 6


@pytest.mark.parametrize("seed", range(20))
def test_each_position_sees_what_it_sees_in_its_own_row(seed: int) -> None:
    """Read back from the layout alone: behind what a token sees stands its row up to itself."""
    rng = random.Random(seed)
    owners = [rng.randrange(4) for _ in range(rng.randint(1, 9))]
    rows = [[9, 9, *(rng.randrange(2) for _ in range(rng.randint(0, 6)))] for _ in owners]
    layout = packed(rows, owners, budget=rng.choice((4, 16, 64)))
    ids = pad_rows(rows, 0)["input_ids"].flatten()
    packing = Packing.of(layout)
    assert packing is not None
    tokens = ids[packing.source]
    width = tokens.shape[1]
    sees = packing.mask(torch.float32)[:, 0] == 0
    for row, expected in enumerate(rows):
        for place in range(len(expected)):
            line, column = divmod(int(packing.place[row, place]), width)
            seen = sees[line, column].nonzero()[:, 0]
            assert tokens[line, seen].tolist() == expected[: place + 1]
            assert packing.positions[line, seen].tolist() == list(range(place + 1))


def test_padding_sees_something() -> None:
    """A softmax over nothing would be NaN, and its gradient would reach every weight."""
    packing = Packing.of(packed([[1, 2, 3], [4]], [0, 1], budget=3))
    assert packing is not None
    assert (packing.mask(torch.float32) == 0).any(dim=-1).all()
