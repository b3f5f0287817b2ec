"""Encodes images for inference: decoded in workers, each image encoded once.

Shape letters: I images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.pixels import pixel_chunks
from qvft.data.sample import ImageSource
from qvft.errors import ImageError
from qvft.models.forward_stages import decode_prefix, encode_features, encode_images

Kept = MutableMapping[str, Tensor]
"""`Encoded.states` by image name, on the CPU, for another pass over the same images."""
MOST_KEPT = 2**30
"""Bytes of kept states: 6,500 images of 32 query tokens for OPT-2.7B in bfloat16."""


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
    kept: Kept | None = None,
) -> Iterator[Encoded | ImageError]:
    """Encodes each source, in order; yields the encoded image or its error.

    Args:
        collator: decodes and preprocesses images, or has cached features.
        workers: decoding processes; 0 decodes in this one.
        head: tokens of the common prefix, for `forward_stages.decode_prefix`.
        shared: indices of the sources that get a KV cache prefix.
        kept: states of an earlier pass, which are used; others are added, up to MOST_KEPT bytes.
    """
    known = dict(kept or {})
    new = [source for source in sources if source.name not in known]
    fresh = _states(model, collator, new, batch_size, workers)
    for start in range(0, len(sources), batch_size):
        chunk = sources[start : start + batch_size]
        found = [
            known[source.name].to(model.device) if source.name in known else next(fresh)
            for source in chunk
        ]
        sharing = {
            place: states
            for place, states in enumerate(found)
            if start + place in shared and not isinstance(states, ImageError)
        }
        prefixes = _prefixes(model, sharing, head)
        for place, (source, states) in enumerate(zip(chunk, found, strict=True)):
            if isinstance(states, ImageError):
                yield states
                continue
            if kept is not None and (len(kept) + 1) * states.nbytes <= MOST_KEPT:
                kept[source.name] = states.cpu()
            yield Encoded(states, prefixes.get(place))


@torch.no_grad()
def _prefixes(
    model: PreTrainedModel, states: Mapping[int, Tensor], head: Sequence[int]
) -> dict[int, Tensor]:
    """KV cache prefixes of a chunk's images by place, computed as a batch."""
    if not states:
        return {}
    found = decode_prefix(model, torch.stack(list(states.values())), head)
    return {place: one.clone() for place, one in zip(states, found, strict=True)}


def _states(
    model: PreTrainedModel,
    collator: Collator,
    sources: Sequence[ImageSource],
    size: int,
    workers: int,
) -> Iterator[Tensor | ImageError]:
    """Each source's states, in memory of their own, or its error."""
    for states, problems in _chunks(model, collator, sources, size, workers):
        arriving = iter(() if states is None else states)
        for problem in problems:
            yield next(arriving).clone() if problem is None else problem


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
