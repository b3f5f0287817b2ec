"""Decodes and preprocesses images to pixel values in worker processes, in chunks.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from qvft.data.collate import Collator
from qvft.data.sample import ImageSource
from qvft.errors import ImageError

Chunk = tuple[Tensor | None, list[ImageError | None]]


def denormalised(pixels: Tensor, processor: Any) -> NDArray[np.float64]:
    """A preprocessed image (3, height, width) as values (height, width, 3) from 0 to 1."""
    values = pixels.permute(1, 2, 0).double().numpy()
    if processor.do_normalize:
        values = values * np.asarray(processor.image_std) + np.asarray(processor.image_mean)
    return np.clip(values, 0.0, 1.0)


def pixel_chunks(
    collator: Collator, sources: Sequence[ImageSource], *, size: int, workers: int
) -> Iterator[Chunk]:
    """Pixels of the sources in order, in chunks of `size`; with `workers` decoding processes.

    Returns:
        Per chunk the pixels (I, 3, height, width) of its usable sources, None if there are none,
        and per source its error or None.
    """
    chunks = [sources[start : start + size] for start in range(0, len(sources), size)]
    return read_chunks(chunks, collator.resized, collator.normalise, workers=workers)


def read_chunks(
    chunks: Sequence[Sequence[Any]],
    read: Callable[[Any], Any],
    join: Callable[[list[Any]], Tensor],
    *,
    workers: int,
) -> Iterator[Chunk]:
    """As `pixel_chunks`, for chunks of any items: `read` reads one and may raise `ImageError`,
    `join` stacks the results to pixels (I, 3, height, width).
    """
    if not chunks:
        return
    loader: DataLoader[Chunk] = DataLoader(
        chunks,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=partial(_read_chunk, read, join),  # runs in workers
        num_workers=min(workers, len(chunks)),
    )
    yield from loader


def _read_chunk(
    read: Callable[[Any], Any], join: Callable[[list[Any]], Tensor], chunk: Sequence[Any]
) -> Chunk:
    found: list[Any] = []
    problems: list[ImageError | None] = []
    for item in chunk:
        try:
            found.append(read(item))
            problems.append(None)
        except ImageError as error:
            problems.append(error)
    return join(found) if found else None, problems
