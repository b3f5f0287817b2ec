"""Collator of a streamed dataset: rows whose image does not decode get no loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from qvft.data.rows import FILLER, Row
from qvft.data.sample import ImageInMemory, ImageSource
from qvft.errors import ImageError

_BLANK = ImageInMemory(Image.new("RGB", (16, 16)))


class StreamingCollator:
    """Collates batches in which rows of an undecodable image have no loss; runs in workers.

    Such a row stays in the batch with a blank image, as padding rows do, and `row_index` has
    `left_out_index` of its number, for the main process. `decode` decodes a view of an image
    source.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[tuple[int, Row]]], dict[str, Any]],
        decode: Callable[[ImageSource, int], Image.Image],
    ) -> None:
        self.collate, self.decode = collate, decode

    def __call__(self, rows: Sequence[tuple[int, Row]]) -> dict[str, Any]:
        images: dict[tuple[str, int], ImageInMemory | None] = {}
        ready: list[tuple[int, Row]] = []
        for number, row in rows:
            key = row.sample.id, row.view
            if key not in images:
                try:
                    images[key] = ImageInMemory(self.decode(row.sample.image, row.view))
                except ImageError:
                    images[key] = None
            image = images[key]
            sample = replace(row.sample, image=image or _BLANK)
            # The view is already applied.
            seen = replace(row, sample=replace(sample, id=f"{row.sample.id} {row.view}"), view=0)
            ready.append((FILLER if image is None else number, seen))
        batch = self.collate(ready)
        numbers = [
            left_out_index(number) if shown == FILLER else number
            for (number, _), (shown, _) in zip(rows, ready, strict=True)
        ]
        return {**batch, "row_index": torch.tensor(numbers)}


def left_out_index(number: int) -> int:
    """Index of a skipped row `number`: below `FILLER`, which is -1."""
    return FILLER if number < 0 else FILLER - 1 - number


def left_out_number(index: int) -> int | None:
    """Row number of an index below `FILLER`, None for any other."""
    return FILLER - 1 - index if index < FILLER else None
