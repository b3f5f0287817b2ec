"""The order of rows in an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class GroupedSampler(Sampler[int]):
    """A random order in which rows of one image stand together in groups.

    Each epoch shuffles the rows within an image, cuts them into groups and shuffles the groups;
    `group_size` 1 is a plain shuffle. The order follows from seed and epoch alone, so that a
    resumed run goes on where it was.

    Args:
        sample_ids: the image of each row.
        group_size: rows of an image that stay together.
        seed: of the order.
    """

    def __init__(self, sample_ids: Sequence[str], *, group_size: int, seed: int) -> None:
        self._by_image: dict[str, list[int]] = {}
        for index, sample_id in enumerate(sample_ids):
            self._by_image.setdefault(sample_id, []).append(index)
        self._length = len(sample_ids)
        self._group_size, self._seed, self._epoch = group_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        groups: list[list[int]] = []
        for rows in self._by_image.values():
            order = torch.randperm(len(rows), generator=generator).tolist()
            shuffled = [rows[i] for i in order]
            groups.extend(
                shuffled[i : i + self._group_size]
                for i in range(0, len(shuffled), self._group_size)
            )
        for index in torch.randperm(len(groups), generator=generator).tolist():
            yield from groups[index]
