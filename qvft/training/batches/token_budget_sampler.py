"""Batch sampler under a token budget: batches with equal numbers of supervised tokens.

Shape letters: N rows, G groups, S batches of an epoch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from qvft.data.token_stats import RowTokens
from qvft.errors import RecipeError
from qvft.training.batches.mixture import Mixture
from qvft.training.batches.sampler import Images, epoch_generator, images_by_epoch, spans


class TokenBatchSampler(Sampler[list[int]]):
    """Batches of at most `budget` tokens, with similar numbers of supervised tokens.

    Rows of an image are kept together in groups, redrawn each epoch as in `GroupedSampler`. The
    number of batches is the same in every epoch and known before the first: the fewest that keep
    every batch within the budget for any grouping. Groups are assigned to batches in rounds,
    longest first, so that all batches have texts of all lengths; within a round, the batch with the
    fewest supervised tokens gets the group with the most. Batch i goes to process i % n of n; their
    number is a multiple of processes times gradient accumulation steps. They depend only on seed
    and epoch.

    Args:
        budget: maximum tokens per batch. Tokens that the rows of a group share count once.
        epochs: with a mixture, the number of epochs by that of batches in one: every epoch that
            training needs is planned, and all have as many batches as the one that needs most.

    Raises:
        RecipeError: a group exceeds the budget, or there are too few rows for every process.
    """

    def __init__(
        self,
        sample_ids: Sequence[str],
        tokens: RowTokens,
        *,
        budget: int,
        group_size: int,
        processes: int,
        accumulation: int,
        seed: int,
        mixture: Mixture | None = None,
        epochs: Callable[[int], int] = lambda count: 1,
    ) -> None:
        self.budget = budget
        self._images, self._tokens = images_by_epoch(sample_ids, mixture), tokens
        self._group_size, self._seed, self._epoch = group_size, seed, 0
        self.rows = len(sample_ids if mixture is None else mixture)
        multiples = (processes * accumulation, processes)
        self._count = self.total_tokens = 0
        groups: list[int] = []
        while not groups or (mixture is not None and len(groups) < epochs(self._count)):
            images = self._images(len(groups))
            longest = self._longest_groups(images)
            total = int(tokens.own[images.rows].sum()) + tokens.prefix * len(longest)
            self.total_tokens = self.total_tokens or total
            groups.append(len(longest))
            self._count = max(
                self._count, _batch_count(longest, total, budget=budget, multiples=multiples)
            )
        if self._count > min(groups):
            raise _too_few(budget, min(groups), processes)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        generator = epoch_generator(self._seed, self._epoch)
        rows, starts, sizes = self._images(self._epoch).groups(self._group_size, generator)
        costs = self._tokens.prefix + np.add.reduceat(self._tokens.own[rows], starts)
        labels = np.add.reduceat(self._tokens.labels[rows], starts)
        for groups in _assigned(costs, labels, self._count, generator):
            yield rows[spans(starts[groups], sizes[groups])].tolist()

    def _longest_groups(self, images: Images) -> np.ndarray:
        """(G,) upper bound of the groups' lengths, longest first: each image's longest rows."""
        size = self._group_size
        own = self._tokens.own[images.rows]
        image = np.repeat(np.arange(len(images.counts)), images.counts)
        longest_first = own[np.lexsort((-own, image))]
        inside = np.arange(len(own)) - images.starts[image] < size
        at_most = np.bincount(image[inside], longest_first[inside], len(images.counts))
        of_groups = np.repeat(at_most.astype(np.int64), -(-images.counts // size))
        return np.sort(of_groups + self._tokens.prefix)[::-1]


def _batch_count(
    longest: np.ndarray, total: int, *, budget: int, multiples: tuple[int, int]
) -> int:
    """Smallest number of batches that no assignment can overfill, a multiple of the first of
    `multiples` if there are groups enough, else of the second.

    A batch has one group of each round, so at most the longest of each: `longest[::S]` added up.
    That of a round is at most the mean of the round before, hence also `total / S` and the longest
    of all.
    """
    groups = len(longest)
    if longest[0] > budget:
        raise RecipeError(
            f"{budget} tokens, but the longest texts of an image that are kept together take "
            f"{longest[0]}",
            where="train.batch_tokens",
            expected=f"{longest[0]} at least",
            do="raise it, or lower train.texts_per_image or data.max_text_tokens",
        )

    def fits(count: int) -> bool:
        worst = min(longest[::count].sum(), total / count + longest[0])
        return bool(worst <= budget)

    for multiple in multiples:
        counts = range(multiple, groups + 1, multiple)
        place = bisect_left(counts, True, key=fits)
        if place < len(counts):
            return counts[place]
    raise _too_few(budget, groups, multiples[1])


def _too_few(budget: int, groups: int, processes: int) -> RecipeError:
    return RecipeError(
        f"{budget} tokens, of which the training texts make {groups} batches at most (texts of an "
        f"image kept together count as one)",
        where="train.batch_tokens",
        expected=f"a multiple of {processes} batches, one for every process",
        do="raise it, use fewer processes, or lower train.texts_per_image",
    )


def _assigned(
    costs: np.ndarray, labels: np.ndarray, count: int, generator: torch.Generator
) -> Iterator[np.ndarray]:
    """Groups of each batch; costs and labels are (G,), `count` is S, at most G."""

    def shuffled(length: int) -> np.ndarray:
        return torch.randperm(length, generator=generator).numpy()

    order = shuffled(len(costs))
    order = order[np.argsort(-costs[order], kind="stable")]
    rounds = -(-len(order) // count)
    table = np.full((rounds, count), -1)
    table.flat[: len(order)] = order
    supervised = np.zeros(count, np.int64)
    for line, groups in enumerate(table):
        sizes = np.where(groups >= 0, labels[groups], 0)
        most_first = np.argsort(-sizes, kind="stable")
        batches = np.argsort(supervised, kind="stable")
        table[line, batches] = groups[most_first]
        supervised[batches] += sizes[most_first]
    for batch in shuffled(count):
        groups = table[:, batch]
        yield groups[groups >= 0]
