"""Mixture of training sources: which texts of each an epoch has, by quota and seed.

Shape letters: N rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from qvft.data.rows import Row
from qvft.recipe.schema import Recipe
from qvft.setup.mixing import quotas_of
from qvft.training.batches.sampler import Images, spans


class Mixture:
    """Rows of each epoch, so many of each source.

    A source's images come in a random order, drawn anew when all of them have come; an epoch
    continues where the one before it ended. The rows depend only on seed and epoch.
    """

    def __init__(self, rows: Sequence[Row], quotas: Mapping[str, int], *, seed: int) -> None:
        self._ids, self._quotas, self._seed = [row.sample.id for row in rows], quotas, seed
        names = np.array([row.sample.origin.name for row in rows])
        self._rows = {name: np.flatnonzero(names == name) for name in quotas}
        self._images = {
            name: Images([self._ids[row] for row in found]) for name, found in self._rows.items()
        }

    def __len__(self) -> int:
        return sum(self._quotas.values())

    def images(self, epoch: int) -> Images:
        """The rows of an epoch by image; an image that comes again counts as another."""
        chosen: list[np.ndarray] = []
        keys: list[tuple[str, int]] = []
        for name, quota in self._quotas.items():
            size, first = len(self._rows[name]), epoch * quota
            for number in range(first // size, -(-(first + quota) // size)):
                start = number * size
                part = self._order(name, number)[max(first - start, 0) : first + quota - start]
                chosen.append(part)
                keys += [(self._ids[row], number) for row in part.tolist()]
        return Images(keys, np.concatenate(chosen))

    def _order(self, name: str, number: int) -> np.ndarray:
        """The rows of a source in their order when they come for the `number`-th time."""
        images = self._images[name]
        digest = hashlib.sha256(f"{self._seed} {number} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        order = torch.randperm(len(images.starts), generator=generator).numpy()
        return self._rows[name][images.rows[spans(images.starts[order], images.counts[order])]]


def mixture_of(recipe: Recipe, rows: Sequence[Row]) -> Mixture | None:
    """The mixture of a phase's rows; None if each comes once per epoch. Raises as `quotas_of`."""
    sizes = Counter(row.sample.origin.name for row in rows)
    quotas = quotas_of(recipe, sizes)
    return None if quotas == sizes else Mixture(rows, quotas, seed=recipe.run.seed)
