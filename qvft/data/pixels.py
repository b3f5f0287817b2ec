"""Decodes and preprocesses images to pixel values in worker processes, in chunks.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from qvft.data.collate import Collator
from qvft.data.sample import ImageSource
from qvft.errors import ImageError

Chunk = tuple[Tensor | None, list[ImageError | None]]


def pixel_chunks(
    collator: Collator, sources: Sequence[ImageSource], *, size: int, workers: int
) -> Iterator[Chunk]:
    """The sources in order, `size` at a time.

    Args:
        collator: decodes, resizes and normalises.
        sources: an unusable one stops none of the others.
        size: sources of a chunk; the last may have fewer.
        workers: processes that decode; 0 decodes in this one.

    Returns:
        For each chunk the pixels (I, 3, height, width) of its usable sources, None where there is
        none, and for each source why it cannot be decoded, None where it can.
    """
    chunks = [sources[start : start + size] for start in range(0, len(sources), size)]
    return read_chunks(chunks, collator.decode, collator.normalise, workers=workers)


def read_chunks(
    chunks: Sequence[Sequence[Any]],
    read: Callable[[Any], Any],
    join: Callable[[list[Any]], Tensor],
    *,
    workers: int,
) -> Iterator[Chunk]:
    """As `pixel_chunks`, of chunks of any items.

    Args:
        chunks: of items.
        read: what is made of an item; raises `ImageError` where that cannot be.
        join: the pixels (I, 3, height, width) of what was read.
        workers: processes that read; 0 reads in this one.
    """
    if not chunks:
        return
    loader: DataLoader[Chunk] = DataLoader(
        chunks,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_Reader(read, join),
        num_workers=min(workers, len(chunks)),
    )
    yield from loader


@dataclass(frozen=True)
class _Reader:
    """Reads a chunk; runs in the loader's workers."""

    read: Callable[[Any], Any]
    join: Callable[[list[Any]], Tensor]

    def __call__(self, chunk: Sequence[Any]) -> Chunk:
        found: list[Any] = []
        problems: list[ImageError | None] = []
        for item in chunk:
            try:
                found.append(self.read(item))
                problems.append(None)
            except ImageError as error:
                problems.append(error)
        return self.join(found) if found else None, problems
