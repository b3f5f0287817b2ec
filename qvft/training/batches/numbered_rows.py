"""Dataset of rows by index, the augmented view of an image per epoch, and the epoch of samplers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback

from qvft.data.rows import FILLER, Row


@dataclass(frozen=True)
class ViewDraw:
    """Draws an image's augmented view for each epoch.

    In every `count` + 1 epochs an image is used once without augmentation and once in each of its
    views, in a random order per image. The draw depends only on seed, epoch and image.
    """

    count: int
    seed: int

    def __call__(self, epoch: int, image: str) -> int:
        """The view of an image, by its sample's id, in an epoch; 0 is the unaugmented image."""
        cycle, place = divmod(epoch, self.count + 1)

        def chance(view: int) -> bytes:
            return hashlib.sha256(f"{self.seed} {cycle} {view} {image}".encode()).digest()

        return sorted(range(self.count + 1), key=chance)[place]


def with_drawn_answer(row: Row, *, seed: int, epoch: int) -> Row:
    """The row with one of its references as target; the draw depends on seed, epoch and row."""
    digest = hashlib.sha256(f"{seed} {epoch} {row.id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") % len(row.references)
    return replace(row, target=row.references[place])


class RowDataset(Dataset):
    """Dataset of numbered rows: item e * rows + i is (i, row i as epoch e sees it), so that a batch
    can name its rows.

    `FILLER` is a padding row without text; it uses the first row's image. `views` draws the view
    of a row's image; None: no augmentation. The answers of rows that are `sampled` are drawn from
    their references by `seed`, epoch and row.
    """

    def __init__(
        self, rows: Sequence[Row], views: ViewDraw | None = None, *, seed: int = 0
    ) -> None:
        self.rows, self.views, self._seed = rows, views, seed
        self._samples = any(row.sampled for row in rows)

    @property
    def varies(self) -> bool:
        """Whether a row differs between epochs."""
        return self.views is not None or self._samples

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, Row]:
        if number == FILLER:
            return FILLER, self.rows[0]
        epoch, index = divmod(number, len(self.rows))
        row = self.rows[index]
        if row.sampled:
            row = with_drawn_answer(row, seed=self._seed, epoch=epoch)
        if self.views is None:
            return index, row
        return index, replace(row, view=self.views(epoch, row.sample.id))


class EpochNumbers(Sampler[Any]):
    """A sampler's rows numbered through all epochs: epoch * rows + row.

    DataLoader workers outlive an epoch and receive numbers only; `RowDataset` reads row and epoch
    from them.
    """

    def __init__(self, rows: Any, count: int) -> None:
        self._rows, self._count, self._epoch = rows, count, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._rows.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        first = self._epoch * self._count
        for item in self._rows:
            if isinstance(item, list):
                yield [first + row for row in item]
            else:
                yield item if item == FILLER else first + item


class EpochOrder(TrainerCallback):
    """Callback that sets the epoch of the sampler or dataset that orders the rows.

    transformers and accelerate reach a sampler only through some of their wrappers: not in a
    distributed run that resumes in the middle of an epoch.
    """

    def __init__(self, order: Callable[[], Any]) -> None:
        self.order = order

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Sets the epoch; `state.epoch` is the number of epochs trained so far."""
        order = self.order()
        if order is not None:
            order.set_epoch(int(state.epoch))
