"""The order of rows: every row once, an image's rows in groups, the same for the same seed."""

import random

import pytest

from qvft.training.batches.sampler import GroupedSampler

IDS = [name for name in "abcdefg" for _ in range(5)]


def order(group_size: int, *, seed: int = 0, epoch: int = 0) -> list[int]:
    sampler = GroupedSampler(IDS, group_size=group_size, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("group_size", [1, 2, 4, 5, 9])
def test_an_epoch_holds_every_row_once(group_size: int) -> None:
    assert sorted(order(group_size)) == list(range(len(IDS)))
    assert len(GroupedSampler(IDS, group_size=group_size, seed=0)) == len(IDS)


def test_rows_of_an_image_stand_together_in_groups() -> None:
    images = [IDS[index] for index in order(4)]
    runs = sum(1 for first, second in zip(images, images[1:], strict=False) if first != second) + 1
    # Seven images of five rows are cut into 4 + 1: fourteen groups, so at most as many runs.
    assert runs <= 14
    assert all(images.count(name) == 5 for name in "abcdefg")


def test_groups_are_cut_anew_each_epoch() -> None:
    def groups(epoch: int) -> set[frozenset[int]]:
        rows = order(5, epoch=epoch)
        return {frozenset(rows[start : start + 5]) for start in range(0, len(rows), 5)}

    assert groups(0) == groups(1)  # whole images: only their order and that of their rows moves
    assert order(5, epoch=0) != order(5, epoch=1)


def test_group_size_one_is_a_plain_shuffle() -> None:
    images = [IDS[index] for index in order(1)]
    repeats = sum(first == second for first, second in zip(images, images[1:], strict=False))
    # 34 neighbours are equal with chance 4/34 each: 4 expected; 15 is beyond five deviations.
    assert repeats < 15


def test_seed_and_epoch_alone_decide() -> None:
    assert order(2, seed=3, epoch=4) == order(2, seed=3, epoch=4)
    assert order(2, seed=3, epoch=4) != order(2, seed=3, epoch=5)
    assert order(2, seed=3, epoch=4) != order(2, seed=4, epoch=4)


def test_the_order_leaves_the_global_random_state_alone() -> None:
    import torch

    state = torch.get_rng_state()
    order(2)
    assert torch.equal(state, torch.get_rng_state())


def one_by_one(ids: list[str], group_size: int, seed: int, epoch: int) -> list[int]:
    """The order in its plainest form: a permutation an image, one of the groups."""
    import torch

    by_image: dict[str, list[int]] = {}
    for index, name in enumerate(ids):
        by_image.setdefault(name, []).append(index)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    groups = []
    for rows in by_image.values():
        shuffled = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
        groups += [shuffled[i : i + group_size] for i in range(0, len(rows), group_size)]
    order = torch.randperm(len(groups), generator=generator).tolist()
    return [row for index in order for row in groups[index]]


@pytest.mark.parametrize("group_size", [1, 2, 5])
def test_all_images_at_once_are_ordered_like_one_after_the_other(group_size: int) -> None:
    """Checkpoints of earlier versions go on in the order that they began with."""
    rows = random.Random(group_size)
    for seed in range(20):
        # Odd and even numbers of draws; images of one row, and of all.
        ids = [f"{rows.randrange(seed + 1)}" for _ in range(rows.randrange(1, 60))]
        sampler = GroupedSampler(ids, group_size=group_size, seed=seed)
        sampler.set_epoch(seed % 3)
        assert list(sampler) == one_by_one(ids, group_size, seed, seed % 3)
