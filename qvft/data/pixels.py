"""From image sources to normalised pixels, decoded in workers, chunk by chunk.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL.Image import Image
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
    loader: DataLoader[Chunk] = DataLoader(
        chunks,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_Reader(collator),
        num_workers=min(workers, len(chunks)),
    )
    yield from loader


class _Reader:
    """Decodes a chunk of sources; runs in the loader's workers."""

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, sources: Sequence[ImageSource]) -> Chunk:
        images: list[Image] = []
        problems: list[ImageError | None] = []
        for source in sources:
            try:
                images.append(self.collator.decode(source))
                problems.append(None)
            except ImageError as error:
                problems.append(error)
        return self.collator.normalise(images) if images else None, problems
