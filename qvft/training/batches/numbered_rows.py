"""Dataset of rows by index, and the epoch number for samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset
from transformers import TrainerCallback

from qvft.data.rows import FILLER, Row
from qvft.training.batches.augmented_views import ViewDraw


class RowDataset(Dataset):
    """Dataset of numbered rows: item e * rows + i is (i, row i as epoch e sees it), so that a batch
    can name its rows.

    `FILLER` is a padding row without text; it uses the first row's image.

    Args:
        rows: of a split.
        views: draws the view of a row's image; None: no augmentation.
    """

    def __init__(self, rows: Sequence[Row], views: ViewDraw | None = None) -> None:
        self.rows, self.views = rows, views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, Row]:
        if number == FILLER:
            return FILLER, self.rows[0]
        epoch, index = divmod(number, len(self.rows))
        row = self.rows[index]
        if self.views is None:
            return index, row
        return index, replace(row, view=self.views(epoch, row.sample.id))


class EpochOrder(TrainerCallback):
    """Callback that sets the epoch of the sampler or dataset that orders the rows.

    transformers and accelerate reach a sampler only through some of their wrappers: not in a
    distributed run that resumes in the middle of an epoch.

    Args:
        order: returns the object with `set_epoch`; None if there is none yet.
    """

    def __init__(self, order: Callable[[], Any]) -> None:
        self.order = order

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Sets the epoch; `state.epoch` is the number of epochs trained so far."""
        order = self.order()
        if order is not None:
            order.set_epoch(int(state.epoch))
