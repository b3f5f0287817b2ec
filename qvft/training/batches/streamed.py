"""Batch sampler of a streamed dataset: exact order and resume, pass after pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Dataset, Sampler

from qvft.data.rows import FILLER, Row
from qvft.data.sample import ImageSource
from qvft.data.stream import Part, Stream, buffered, row_groups
from qvft.data.streaming_collator import left_out_number
from qvft.errors import DataError, ImageError
from qvft.log import get_logger
from qvft.training.batches.numbered_rows import ViewDraw, with_drawn_answer

logger = get_logger("qvft.data")
NAMED = 100
"""Number of skipped records that are logged one by one; after that, every thousandth."""


class StreamedBatches(Sampler[list[tuple[int, Row]]]):
    """Batches of numbered rows of one process, in the same order from the start each time.

    Records are read in the main process; they hold the positions of images, which workers read and
    decode. So the order depends neither on workers nor on where a run was interrupted, and a
    resumed run skips past batches without decoding images.

    Args:
        buffer: size of the shuffle buffer, in groups.
        check: raises the `ImageError` of an image that does not decode.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        batch_size: int,
        group_size: int,
        buffer: int,
        seed: int,
        rank: int,
        world: int,
        texts: str,
        on_bad: Literal["error", "skip"],
        check: Callable[[ImageSource], Any],
        views: ViewDraw | None = None,
    ) -> None:
        self.stream, self.batch_size, self.check = stream, batch_size, check
        self.rows = RecentRows()
        self.skipped = 0
        self._group_size, self._buffer, self._texts = group_size, buffer, texts
        self._seed, self._rank, self._world = seed, rank, world
        self._on_bad, self._views = on_bad, views

    def keep(self, rows: int) -> None:
        """Sets how many rows behind the newest are kept: those of batches in flight."""
        self.rows.most = rows

    def __iter__(self) -> Iterator[list[tuple[int, Row]]]:
        batch: list[tuple[int, Row]] = []
        for number, row in enumerate(self._endless()):
            batch.append((number, row))
            if len(batch) == self.batch_size:
                self.rows.add(batch)
                yield batch
                batch = []

    def check_images(self, row_index: Tensor) -> None:
        """Raises ImageError for images that a batch reports as not decoded, or skips them."""
        found = (left_out_number(index) for index in row_index.tolist())
        sources = {self.rows[number][1].sample.image for number in found if number is not None}
        for source in sorted(sources, key=lambda one: one.name):
            try:
                self.check(source)
            except ImageError as error:
                self._skip(error)
            else:  # a temporary failure of the file system
                self._skip(ImageError("decodes now, but did not decode before", where=source.name))

    def _endless(self) -> Iterator[Row]:
        for number in count():
            row = None
            for row in self._one_pass(number):
                yield row
            if row is None:
                raise DataError(
                    f"a pass over the stream gives process {self._rank} of {self._world} no text",
                    where="data.train",
                    expected="usable records, more than processes",
                    do="check data.train.path and data.train.texts",
                )

    def _one_pass(self, number: int) -> Iterator[Row]:
        # Seeded by a string's digest, which is the same on every machine.
        rng = Random(f"{self._seed} {number} {self._rank} {self._world}")
        for group in buffered(self._groups(number, rng), self._buffer, rng):
            for row in group:
                view = 0 if self._views is None else self._views(number, row.sample.id)
                if row.sampled:
                    row = with_drawn_answer(row, seed=self._seed, epoch=number)
                yield replace(row, view=view)

    def _groups(self, number: int, rng: Random) -> Iterator[list[Row]]:
        for found in self.stream.samples(Part(number, self._seed, self._rank, self._world)):
            if isinstance(found, DataError):
                self._skip(found)
            else:
                yield from row_groups(found, self._group_size, rng, texts=self._texts)

    def _skip(self, error: DataError) -> None:
        if self._on_bad == "error":
            raise error
        self.skipped += 1
        if self.skipped <= NAMED or not self.skipped % 1000:
            logger.warning("skipped, %d so far (data.on_bad_image: skip): %s", self.skipped, error)


class RecentRows(Dataset):
    """Rows of the batches in flight, by number, as the Trainer asks for them again.

    A skipped row has a number below `FILLER`, and is a filler.
    """

    def __init__(self) -> None:
        self.most = 0
        self._rows: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[int, Row]:
        number = left_out_number(index)
        if number is not None:
            return FILLER, self._rows[number]
        return index, self._rows[index]

    def add(self, batch: list[tuple[int, Row]]) -> None:
        """Adds a batch and drops the oldest."""
        self._rows.update(batch)
        while len(self._rows) > max(self.most, len(batch)):
            del self._rows[next(iter(self._rows))]


class GivenRows(Dataset):
    """Dataset of a DataLoader whose batches already hold the rows."""

    def __getitem__(self, item: tuple[int, Row]) -> tuple[int, Row]:
        return item
