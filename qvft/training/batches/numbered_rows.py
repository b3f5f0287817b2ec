"""Rows by number, and which epoch it is that orders them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset
from transformers import TrainerCallback

from qvft.data.rows import FILLER, Row
from qvft.training.batches.augmented_views import ViewDraw


class RowDataset(Dataset):
    """Numbered rows: item e * rows + i is (i, row i as epoch e sees it), so that a batch can name
    its rows.

    `FILLER` is a row of no text; the first stands for it.

    Args:
        rows: of a split.
        views: draws the view of a row's image; None: it is seen as it is in every epoch.
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
    """Tells what orders the rows which epoch begins.

    transformers and accelerate reach a sampler through some of their wrappers only: not in one of
    several processes that goes on in the middle of an epoch.

    Args:
        order: finds it, with `set_epoch`; None where nothing is ordered yet.
    """

    def __init__(self, order: Callable[[], Any]) -> None:
        self.order = order

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """`state.epoch` is what has been trained so far, in epochs."""
        order = self.order()
        if order is not None:
            order.set_epoch(int(state.epoch))
