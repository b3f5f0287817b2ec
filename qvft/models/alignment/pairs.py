"""Image-text pairs of a batch, on this rank and across ranks.

Shape letters: I images and N pairs of this process; J images and G pairs of all processes;
T text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from qvft.models.alignment.gather import first_row, gathered, is_distributed, row_counts


@dataclass(frozen=True)
class Pairs:
    """Image-text pairs of a batch.

    Attributes:
        image_ids: (I,) long: equal for equal images, in all processes.
        image_index: (N,) long: index of each text's image among this process's images.
        input_ids, text_mask: (N, T) long: texts, tokenized for the text branch, padded on the
            right.
    """

    image_ids: Tensor
    image_index: Tensor
    input_ids: Tensor
    text_mask: Tensor


@dataclass(frozen=True)
class GatheredPairs:
    """All processes' pairs by rank, and the position of this process's pairs.

    Attributes:
        pairs: the pairs; `image_index` indexes all J images.
        images, texts: number per process.
        rows: this process's pairs among G.
    """

    pairs: Pairs
    images: list[int]
    texts: list[int]
    rows: slice


def gather_pairs(pairs: Pairs) -> GatheredPairs:
    """All-gather of the pairs; texts are padded to the longest of all processes."""
    images, texts = row_counts(pairs.image_ids), row_counts(pairs.image_index)
    longest = torch.tensor(pairs.input_ids.shape[1], device=pairs.input_ids.device)
    if is_distributed():
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    padding = (0, int(longest) - pairs.input_ids.shape[1])
    start = first_row(texts)
    all_pairs = Pairs(
        image_ids=gathered(pairs.image_ids, images),
        image_index=gathered(pairs.image_index + first_row(images), texts),
        input_ids=gathered(pad(pairs.input_ids, padding), texts),
        text_mask=gathered(pad(pairs.text_mask, padding), texts),
    )
    return GatheredPairs(all_pairs, images, texts, slice(start, start + len(pairs.image_index)))


def matching_pairs(pairs: Pairs) -> Tensor:
    """Which text matches which pair's image, (G, G) bool.

    True if both are of one image, or if the two texts have equal tokens: a caption that describes
    two images is not a negative of either.
    """
    images = pairs.image_ids[pairs.image_index]
    texts = pairs.input_ids.masked_fill(pairs.text_mask == 0, -1)
    same_text = (texts[:, None] == texts[None, :]).all(dim=-1)
    return (images[:, None] == images[None, :]) | same_text
