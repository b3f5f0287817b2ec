"""From image sources to what their rows share: decoded in workers, each encoded once.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.pixels import pixel_chunks
from qvft.data.sample import ImageSource
from qvft.errors import ImageError
from qvft.models.stages import encode_features, encode_images

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
        collator: decodes, resizes and normalises, or has features at hand; then every image has
            been read before.
        sources: each encoded once; an unusable one stops none of the others.
        batch_size: images encoded together.
        workers: processes that decode; 0 decodes in this one.
    """
    if collator.features is not None:
        for start in range(0, len(sources), batch_size):
            features = collator.features(sources[start : start + batch_size])
            yield from _apart(encode_features, model, features)
        return
    for pixels, problems in pixel_chunks(collator, sources, size=batch_size, workers=workers):
        states = iter(() if pixels is None else _apart(encode_images, model, pixels))
        for problem in problems:
            yield next(states) if problem is None else problem


@torch.no_grad()
def _apart(
    encode: Callable[[PreTrainedModel, Tensor], Tensor], model: PreTrainedModel, seen: Tensor
) -> list[Tensor]:
    """One tensor an image, each in memory of its own, so that it can be let go alone."""
    return [state.clone() for state in encode(model, seen.to(model.device))]
