"""Row samplers: rows of an epoch shuffled and grouped by image, and padded for several processes.

Shape letters: N rows, I images, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Sampler

from qvft.data.rows import FILLER

if TYPE_CHECKING:
    from qvft.training.batches.mixture import Mixture


class GroupedSampler(Sampler[int]):
    """Shuffles rows so that rows of one image stay together in groups.

    Each epoch shuffles the rows within an image, cuts them into groups and shuffles the groups;
    `group_size` 1 is a plain shuffle. The order depends only on seed and epoch, so that a resumed
    run continues exactly.

    Args:
        group_size: rows of an image that are kept together.
        mixture: chooses the rows of each epoch; None: all of them.
    """

    def __init__(
        self,
        sample_ids: Sequence[str],
        *,
        group_size: int,
        seed: int,
        mixture: Mixture | None = None,
    ) -> None:
        self._images = images_by_epoch(sample_ids, mixture)
        self._length = len(sample_ids if mixture is None else mixture)
        self._group_size, self._seed, self._epoch = group_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        generator = epoch_generator(self._seed, self._epoch)
        rows, starts, sizes = self._images(self._epoch).groups(self._group_size, generator)
        order = torch.randperm(len(starts), generator=generator).numpy()
        yield from rows[spans(starts[order], sizes[order])].tolist()


class PaddedSampler(Sampler[int]):
    """Appends `FILLER` to a sampler's order until its length is a multiple of the global batch
    size, so that N processes with batch size B see what one with batch size N x B sees.

    Accelerate alone would repeat rows from the start of the epoch.

    Args:
        order: a sized sampler with `set_epoch`.
        multiple: batch size times number of processes.
    """

    def __init__(self, order: Any, *, multiple: int) -> None:
        self._order, self._multiple = order, multiple

    def set_epoch(self, epoch: int) -> None:
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._order) // self._multiple) * self._multiple

    def __iter__(self) -> Iterator[int]:
        yield from self._order
        yield from [FILLER] * (len(self) - len(self._order))


class Images:
    """Rows by image, shuffled and split into groups anew for each epoch.

    Attributes:
        rows: (N,) row numbers, grouped by image in order of first appearance.
        starts, counts: (I,) start of each image's rows in `rows`, and their number.

    Args:
        sample_ids: sample id of each row, or what else names its image.
        rows: (N,) row numbers; None: 0 to N - 1.
    """

    def __init__(self, sample_ids: Sequence[Hashable], rows: np.ndarray | None = None) -> None:
        numbers: dict[Hashable, int] = {}
        of_row = np.array([numbers.setdefault(name, len(numbers)) for name in sample_ids], np.int64)
        order = np.argsort(of_row, kind="stable")
        self.rows = order if rows is None else rows[order]
        self.counts = np.bincount(of_row, minlength=len(numbers))
        self.starts = np.cumsum(self.counts) - self.counts

    def groups(
        self, size: int, generator: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shuffled rows (N,), and start and size of each group, (G,) both."""
        rows = self.rows.copy()
        for start, count in zip(self.starts.tolist(), self.counts.tolist(), strict=True):
            if count > 1:
                order = torch.randperm(count, generator=generator).numpy()
                rows[start : start + count] = rows[start : start + count][order]
        groups = -(-self.counts // size)
        image = np.repeat(np.arange(len(groups)), groups)
        number = spans(np.zeros_like(groups), groups)
        starts = self.starts[image] + number * size
        return rows, starts, np.minimum(size, self.counts[image] - number * size)


def images_by_epoch(sample_ids: Sequence[str], mixture: Mixture | None) -> Callable[[int], Images]:
    """The rows of an epoch by image."""
    if mixture is not None:
        return mixture.images
    images = Images(sample_ids)
    return lambda epoch: images


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def spans(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Concatenated ranges: from each start, as many numbers as its size."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)
