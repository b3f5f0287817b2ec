"""From image sources to what their rows share: decoded in workers, each encoded once.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.sample import ImageSource
from qvft.errors import ImageError
from qvft.models.stages import encode_images

Encoded = Tensor | ImageError


def encoded_images(
    model: PreTrainedModel,
    collator: Collator,
    sources: Sequence[ImageSource],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Encoded]:
    """What an image's rows share, of each source in order, or why the image cannot be decoded.

    Args:
        model: in evaluation mode.
        collator: decodes, resizes and normalises.
        sources: each encoded once; an unusable one stops none of the others.
        batch_size: images encoded together.
        workers: processes that decode; 0 decodes in this one.
    """
    chunks = [sources[start : start + batch_size] for start in range(0, len(sources), batch_size)]
    loader = DataLoader(
        chunks,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_Reader(collator),
        num_workers=min(workers, len(chunks)),
    )
    for pixels, problems in loader:
        states = iter(_states(model, pixels))
        for problem in problems:
            yield next(states) if problem is None else problem


class _Reader:
    """Decodes a chunk of sources; runs in the loader's workers."""

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(
        self, sources: Sequence[ImageSource]
    ) -> tuple[Tensor | None, list[ImageError | None]]:
        """Pixels (I, 3, height, width) of the usable sources, and for each source its problem."""
        images: list[Image] = []
        problems: list[ImageError | None] = []
        for source in sources:
            try:
                images.append(self.collator.decode(source))
                problems.append(None)
            except ImageError as error:
                problems.append(error)
        return self.collator.normalise(images) if images else None, problems


@torch.no_grad()
def _states(model: PreTrainedModel, pixels: Tensor | None) -> list[Tensor]:
    """One tensor an image, each in memory of its own, so that it can be let go alone."""
    if pixels is None:
        return []
    encoded = encode_images(model, pixels.to(model.device))
    return [state.clone() for state in encoded]
