"""Row sampler: shuffles rows per epoch, grouped by image.

Shape letters: N rows, I images, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

INT64_MIN = -(2**63)


class GroupedSampler(Sampler[int]):
    """Shuffles rows so that rows of one image stay together in groups.

    Each epoch shuffles the rows within an image, cuts them into groups and shuffles the groups;
    `group_size` 1 is a plain shuffle. The order depends only on seed and epoch, so that a resumed
    run continues exactly.

    Args:
        sample_ids: sample id of each row.
        group_size: rows of an image that are kept together.
        seed: seed of the order.
    """

    def __init__(self, sample_ids: Sequence[str], *, group_size: int, seed: int) -> None:
        self._images = Images(sample_ids)
        self._group_size, self._seed, self._epoch = group_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the next epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._images.rows)

    def __iter__(self) -> Iterator[int]:
        generator = epoch_generator(self._seed, self._epoch)
        rows, starts, sizes = self._images.groups(self._group_size, generator)
        order = torch.randperm(len(starts), generator=generator).numpy()
        yield from rows[spans(starts[order], sizes[order])].tolist()


class Images:
    """Rows by image, shuffled and split into groups anew for each epoch.

    Attributes:
        rows: (N,) row numbers, grouped by image in order of first appearance.
        starts, counts: (I,) start of each image's rows in `rows`, and their number.
    """

    def __init__(self, sample_ids: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        of_row = np.array([numbers.setdefault(name, len(numbers)) for name in sample_ids], np.int64)
        self.rows = np.argsort(of_row, kind="stable")
        self.counts = np.bincount(of_row, minlength=len(numbers))
        self.starts = np.cumsum(self.counts) - self.counts

    def groups(
        self, size: int, generator: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shuffled rows (N,), and start and size of each group, (G,) both."""
        rows = self._shuffled(generator)
        cut = -(-self.counts // size)
        image = np.repeat(np.arange(len(cut)), cut)
        place = spans(np.zeros_like(cut), cut)
        starts = self.starts[image] + place * size
        return rows, starts, np.minimum(size, self.counts[image] - place * size)

    def _shuffled(self, generator: torch.Generator) -> np.ndarray:
        """The rows, each image's rows permuted as `torch.randperm` would.

        A Fisher-Yates shuffle: position i of n is swapped with position i + draw % (n - i), one
        32-bit draw per position except the last. Vectorised over images.

        Source: aten/src/ATen/native/TensorFactories.cpp, `randperm_cpu`; a test holds it.
        """
        rows = self.rows.copy()
        steps = np.maximum(self.counts - 1, 0)
        draws = _draws(int(steps.sum()), generator)
        first = np.cumsum(steps) - steps
        by_length = np.argsort(-steps, kind="stable")
        alive = np.cumsum(np.bincount(steps)[::-1])[::-1]
        for step in range(int(steps.max(initial=0))):
            images = by_length[: alive[step + 1]]
            here = self.starts[images] + step
            there = here + draws[first[images] + step] % (self.counts[images] - step)
            rows[here], rows[there] = rows[there], rows[here]
        return rows


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Random generator of an epoch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def spans(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Concatenated ranges: from each start, as many numbers as its size."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def _draws(count: int, generator: torch.Generator) -> np.ndarray:
    """The next 32-bit random numbers, as int64; the generator gives 64 bits for two of them."""
    pairs = torch.empty(count // 2, dtype=torch.int64)
    pairs.random_(INT64_MIN, None, generator=generator)
    halves = pairs.numpy().view(np.uint64)
    both = np.stack([halves >> np.uint64(32), halves & np.uint64(0xFFFFFFFF)], axis=1)
    draws = both.reshape(-1).astype(np.int64)
    if count % 2:
        # The last draw chooses between two positions, as in a permutation of two.
        draws = np.append(draws, int(torch.randperm(2, generator=generator)[0]))
    return draws
