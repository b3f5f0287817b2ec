"""Encodes images for inference: decoded in workers, each image encoded once.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.pixels import pixel_chunks
from qvft.data.sample import ImageSource
from qvft.errors import ImageError
from qvft.models.forward_stages import decode_prefix, encode_features, encode_images


@dataclass(frozen=True)
class Encoded:
    """What an image's rows share, each in memory of its own, so that it can be let go alone.

    Attributes:
        states: from `forward_stages.encode_features`.
        prefix: the decoder's keys and values, `forward_stages.decode_prefix`; None where each row
            computes its own.
    """

    states: Tensor
    prefix: Tensor | None = None


def encoded_images(
    model: PreTrainedModel,
    collator: Collator,
    sources: Sequence[ImageSource],
    *,
    batch_size: int,
    workers: int,
    head: Sequence[int] = (),
    shared: Collection[int] = (),
) -> Iterator[Encoded | ImageError]:
    """What an image's rows share, of each source in order, or why the image cannot be decoded.

    Args:
        model: in evaluation mode.
        collator: decodes, resizes and normalises, or has features at hand; then every image has
            been read before.
        sources: each encoded once; an unusable one stops none of the others.
        batch_size: images encoded together.
        workers: processes that decode; 0 decodes in this one.
        head: tokens that rows begin with, for `forward_stages.decode_prefix`.
        shared: numbers of the sources that have a prefix decoded.
    """
    number = 0
    for states, problems in _chunks(model, collator, sources, batch_size, workers):
        validate_images = iter(() if states is None else states)
        sharing = [
            place in shared
            for place, problem in enumerate(problems, start=number)
            if problem is None
        ]
        prefixes = _prefixes(model, states, head, sharing)
        for problem in problems:
            if problem is None:
                yield Encoded(next(validate_images).clone(), next(prefixes))
            else:
                yield problem
        number += len(problems)


@torch.no_grad()
def _prefixes(
    model: PreTrainedModel, states: Tensor | None, head: Sequence[int], sharing: Sequence[bool]
) -> Iterator[Tensor | None]:
    """The prefix of each image that shares one, decoded together."""
    if not any(sharing):
        return iter([None] * len(sharing))
    found = iter(decode_prefix(model, states[torch.tensor(sharing)], head))
    return iter([next(found).clone() if shares else None for shares in sharing])


def _chunks(
    model: PreTrainedModel,
    collator: Collator,
    sources: Sequence[ImageSource],
    size: int,
    workers: int,
) -> Iterator[tuple[Tensor | None, Sequence[ImageError | None]]]:
    """States (I, ...) of the usable images of each chunk, and for every image what is wrong."""
    if collator.features is not None:
        for start in range(0, len(sources), size):
            features = collator.features(sources[start : start + size])
            with torch.no_grad():
                states = encode_features(model, features.to(model.device))
            yield states, [None] * len(states)
        return
    for pixels, problems in pixel_chunks(collator, sources, size=size, workers=workers):
        with torch.no_grad():
            states = None if pixels is None else encode_images(model, pixels.to(model.device))
        yield states, problems
