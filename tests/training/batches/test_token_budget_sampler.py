"""Batches by tokens: within the budget, every row once, as much to learn in each."""

from __future__ import annotations

import random

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, skip_first_batches
from torch.utils.data import DataLoader

from qvft.data.token_stats import RowTokens
from qvft.errors import RecipeError
from qvft.training.batches.numbered_rows import EpochOrder
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.batches.token_budget_sampler import TokenBatchSampler

PREFIX = 33


def drawn(seed: int, images: int) -> tuple[list[str], RowTokens]:
    """Images of 1 to 7 texts; prompts of 2 to 15 tokens, targets of 2 to 12."""
    numbers = random.Random(seed)
    names = [f"{image}" for image in range(images) for _ in range(numbers.randint(1, 7))]
    numbers.shuffle(names)
    labels = np.array([numbers.randint(2, 12) for _ in names])
    return names, RowTokens(PREFIX, labels + [numbers.randint(2, 15) for _ in names], labels)


def sampler(
    data: tuple[list[str], RowTokens],
    budget: int = 400,
    *,
    group_size: int = 3,
    processes: int = 1,
    accumulation: int = 1,
    seed: int = 0,
) -> TokenBatchSampler:
    return TokenBatchSampler(
        data[0],
        data[1],
        budget=budget,
        group_size=group_size,
        processes=processes,
        accumulation=accumulation,
        seed=seed,
    )


def batches(made: TokenBatchSampler, epoch: int) -> list[list[int]]:
    made.set_epoch(epoch)
    return list(made)


def tokens_of(data: tuple[list[str], RowTokens], rows: list[int]) -> int:
    """What the decoder sees of a batch: a prefix an image, and every row's own tokens."""
    names, tokens = data
    return PREFIX * len({names[row] for row in rows}) + int(tokens.own[rows].sum())


@pytest.mark.parametrize("group_size", [1, 3, 9])
@pytest.mark.parametrize("budget", [250, 400, 3000])
def test_no_batch_of_any_epoch_exceeds_the_budget(group_size: int, budget: int) -> None:
    data = drawn(budget, 80)
    made = sampler(data, budget, group_size=group_size)
    for epoch in range(10):
        found = batches(made, epoch)
        assert len(found) == len(made)
        assert max(tokens_of(data, rows) for rows in found) <= budget


@pytest.mark.parametrize("processes", [1, 3])
def test_an_epoch_holds_every_row_once(processes: int) -> None:
    data = drawn(1, 50)
    made = sampler(data, processes=processes)
    for epoch in range(3):
        # As accelerate divides them.
        shares = []
        for process in range(processes):
            made.set_epoch(epoch)
            shares.append(list(BatchSamplerShard(made, processes, process)))
        assert len({len(share) for share in shares}) == 1
        rows = sorted(row for share in shares for batch in share for row in batch)
        assert rows == list(range(len(data[0])))


def test_rows_of_an_image_stand_together_in_groups() -> None:
    names = [f"{image}" for image in range(40) for _ in range(6)]
    tokens = RowTokens(PREFIX, np.full(240, 10), np.full(240, 3))
    for rows in batches(sampler((names, tokens), 500, group_size=3), 1):
        runs = [names[row] for row in rows]
        assert all(len(set(runs[at : at + 3])) == 1 for at in range(0, len(runs), 3))


def test_batches_have_as_much_to_learn() -> None:
    """A round evens out what rounds before left, to the spread of what it deals."""
    data = drawn(3, 400)
    made = sampler(data, 1000)
    plain = GroupedSampler(data[0], group_size=3, seed=0)
    order, size = list(plain), len(data[0]) // len(made)
    chunks = [order[at : at + size] for at in range(0, size * len(made), size)]
    labels = data[1].labels

    def unevenness(found: list[list[int]]) -> float:
        learnt = [labels[rows].sum() for rows in found]
        return max(learnt) / np.mean(learnt) - 1

    assert unevenness(batches(made, 0)) < 0.03 < 0.1 < unevenness(chunks)


def test_as_few_batches_as_the_budget_allows() -> None:
    names = [f"{index}" for index in range(100)]
    tokens = RowTokens(10, np.full(100, 15), np.full(100, 4))
    # Rows of 25 tokens, four to a hundred.
    assert len(sampler((names, tokens), 100)) == 25
    assert len(sampler((names, tokens), 124)) == 25
    assert len(sampler((names, tokens), 125)) == 20


def test_steps_are_whole_where_there_are_texts_enough() -> None:
    data = drawn(2, 100)
    made = sampler(data, processes=2, accumulation=4)
    assert len(made) % 8 == 0
    few = sampler(drawn(2, 3), 300, processes=2, accumulation=40)
    assert len(few) % 2 == 0


def test_a_process_with_half_the_accumulation_sees_its_half_of_each_step() -> None:
    data = drawn(4, 60)
    alone, shared = sampler(data, accumulation=2), sampler(data, processes=2)
    assert batches(alone, 2) == batches(shared, 2)


def test_seed_and_epoch_alone_decide() -> None:
    data = drawn(5, 30)
    assert batches(sampler(data, seed=1), 4) == batches(sampler(data, seed=1), 4)
    assert batches(sampler(data, seed=1), 4) != batches(sampler(data, seed=1), 5)
    assert batches(sampler(data, seed=1), 4) != batches(sampler(data, seed=2), 4)


def test_a_text_longer_than_the_budget_is_an_error() -> None:
    data = (["a", "a", "b"], RowTokens(PREFIX, np.array([50, 60, 10]), np.array([5, 5, 5])))
    assert len(sampler(data, 143, group_size=2)) == 2
    with pytest.raises(RecipeError, match=r"142 tokens.*take 143.*raise it"):
        sampler(data, 142, group_size=2)
    assert len(sampler(data, 142, group_size=1)) == 2


def test_fewer_texts_than_processes_are_an_error() -> None:
    with pytest.raises(RecipeError, match="one for every process"):
        sampler(drawn(0, 2), 3000, group_size=9, processes=3)


@pytest.mark.parametrize("order", ["tokens", "texts"])
def test_a_process_that_goes_on_within_a_later_epoch_has_that_epochs_order(order: str) -> None:
    """accelerate's wrappers of a process of several hide the sampler from its `set_epoch`."""
    data = drawn(6, 40)
    made = sampler(data, processes=2) if order == "tokens" else GroupedSampler(
        data[0], group_size=3, seed=0
    )  # fmt: skip

    def loader() -> DataLoader:
        if isinstance(made, TokenBatchSampler):
            return DataLoader(data[0], batch_sampler=made)
        return DataLoader(data[0], sampler=made, batch_size=5)

    made.set_epoch(1)
    whole = list(BatchSamplerShard(loader().batch_sampler, 2, 1))
    made.set_epoch(0)
    divided = DataLoader(data[0], batch_sampler=BatchSamplerShard(loader().batch_sampler, 2, 1))
    left = skip_first_batches(divided, 2)

    class State:
        epoch = 1.5

    EpochOrder(lambda: made).on_epoch_begin(None, State, None)
    assert list(left.batch_sampler) == whole[2:]
