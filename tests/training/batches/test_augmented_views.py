"""Which view an epoch shows of an image, and how the data loader learns of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.training.batches.numbered_rows import EpochNumbers, RowDataset, ViewDraw
from qvft.training.batches.sampler import GroupedSampler

SAMPLES = [Sample(f"s{index}", ImageFile(Path(f"{index}.png"))) for index in range(6)]
ROWS = [
    Row(f"{index}", SAMPLES[index // 2], "caption", None, "a", ("a",), {}) for index in range(12)
]


def test_each_view_is_shown_once_in_as_many_epochs() -> None:
    draw = ViewDraw(3, seed=0)
    for start in (0, 4, 8):
        for image in "abcdef":
            shown = [draw(epoch, image) for epoch in range(start, start + 4)]
            assert sorted(shown) == [0, 1, 2, 3]


def test_images_have_orders_of_their_own() -> None:
    draw = ViewDraw(2, seed=0)
    orders = {tuple(draw(epoch, f"{image}") for epoch in range(6)) for image in range(40)}
    assert len(orders) > 20  # of 36 there are


def test_seed_epoch_and_image_alone_decide() -> None:
    found = [ViewDraw(4, seed=1)(epoch, "x") for epoch in range(50)]
    assert found == [ViewDraw(4, seed=1)(epoch, "x") for epoch in range(50)]
    assert found != [ViewDraw(4, seed=2)(epoch, "x") for epoch in range(50)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_shows_an_images_rows_in_one_view_of_the_epoch(workers: int) -> None:
    dataset = RowDataset(ROWS, ViewDraw(2, seed=0))
    names = [row.sample.id for row in ROWS]
    order = EpochNumbers(GroupedSampler(names, group_size=2, seed=0), len(ROWS))
    loader = DataLoader(
        dataset,
        sampler=order,
        batch_size=4,
        collate_fn=list,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for epoch in (0, 1, 2, 5):
        order.set_epoch(epoch)
        seen = [item for batch in loader for item in batch]
        assert sorted(index for index, _ in seen) == list(range(12))
        for index, row in seen:
            assert row.id == ROWS[index].id
            assert row.view == ViewDraw(2, seed=0)(epoch, row.sample.id)


def test_without_views_rows_are_as_they_were() -> None:
    assert RowDataset(ROWS)[5] == (5, ROWS[5])
    assert RowDataset(ROWS)[5][1] is ROWS[5]
