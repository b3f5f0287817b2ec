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
    """What an image's rows share, in its own memory, so that it can be freed separately.

    Attributes:
        states: from `forward_stages.encode_features`.
        prefix: KV cache of the prefix, from `forward_stages.decode_prefix`; None if not shared.
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
    """Encodes each source, in order; yields the encoded image or its error.

    Args:
        collator: decodes and preprocesses images, or has cached features.
        workers: decoding processes; 0 decodes in this one.
        head: tokens of the common prefix, for `forward_stages.decode_prefix`.
        shared: indices of the sources that get a KV cache prefix.
    """
    number = 0
    for states, problems in _chunks(model, collator, sources, batch_size, workers):
        usable = [place for place, problem in enumerate(problems, number) if problem is None]
        prefixes = _prefixes(model, states, head, [place in shared for place in usable])
        arriving = zip(() if states is None else states, prefixes, strict=True)
        for problem in problems:
            if problem is None:
                state, prefix = next(arriving)
                yield Encoded(state.clone(), prefix)
            else:
                yield problem
        number += len(problems)


@torch.no_grad()
def _prefixes(
    model: PreTrainedModel, states: Tensor | None, head: Sequence[int], sharing: Sequence[bool]
) -> Iterator[Tensor | None]:
    """KV cache prefixes of a chunk's usable images, computed as a batch; None if not shared."""
    if states is None or not any(sharing):
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
    """States (I, ...) of the usable images of each chunk, and every image's error or None."""
    states: Tensor | None
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
