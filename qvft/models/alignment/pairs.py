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
    """The pairs of a batch.

    Attributes:
        image_ids: (I,) long: equal numbers, equal images; the same in all processes.
        image_index: (N,) long: the image of each text, in this process's images.
        input_ids, text_mask: (N, T) long: texts of the text branch's tokenizer, padded on the
            right.
    """

    image_ids: Tensor
    image_index: Tensor
    input_ids: Tensor
    text_mask: Tensor


@dataclass(frozen=True)
class World:
    """All processes' pairs in the order of their ranks, and where this one's are.

    Attributes:
        pairs: the pairs; `image_index` counts through all J images.
        images, texts: how many each process has.
        rows: this process's pairs among G.
    """

    pairs: Pairs
    images: list[int]
    texts: list[int]
    rows: slice


def gather_pairs(pairs: Pairs) -> World:
    """The pairs of all processes; texts are padded to the longest anywhere."""
    images, texts = row_counts(pairs.image_ids), row_counts(pairs.image_index)
    longest = torch.tensor(pairs.input_ids.shape[1], device=pairs.input_ids.device)
    if is_distributed():
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    missing = (0, int(longest) - pairs.input_ids.shape[1])
    start = first_row(texts)
    whole = Pairs(
        image_ids=gathered(pairs.image_ids, images),
        image_index=gathered(pairs.image_index + first_row(images), texts),
        input_ids=gathered(pad(pairs.input_ids, missing), texts),
        text_mask=gathered(pad(pairs.text_mask, missing), texts),
    )
    return World(whole, images, texts, slice(start, start + len(pairs.image_index)))


def belongs(pairs: Pairs) -> Tensor:
    """Which text belongs to which pair's image, (G, G) bool.

    Where both are of one image, and where the two texts are the same, token by token: a caption
    that describes two images is not wrong for either.
    """
    numbers = pairs.image_ids[pairs.image_index]
    texts = pairs.input_ids.masked_fill(pairs.text_mask == 0, -1)
    same_text = (texts[:, None] == texts[None, :]).all(dim=-1)
    return (numbers[:, None] == numbers[None, :]) | same_text
