"""Runs a decoder over packed rows: attention mask, position ids, logits per row.

Shape letters: B rows, L row length, R packed rows, K packed row length, D decoder width,
N positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qvft.models.flex_attention import block_mask, uses_flex
from qvft.models.forward_stages import EncodedPrompts, decode_hidden, read_images

SHARED_PREFIX = -1
PACKED = tuple(f"packed_{name}" for name in ("source", "positions", "owner", "text", "place"))
"""Names of the packing's tensors in a batch, in the order of `Packing`."""


@dataclass(frozen=True)
class Packing:
    """Positions of rows' tokens in packed rows; made by `data.packing.packed`.

    Attributes:
        source: (R, K) index of the token at that position, b * L + l.
        positions: (R, K) position id in its own row.
        owner: (R, K) group of rows that the token belongs to; -1 at padding.
        text: (R, K) row of the token; -1 if shared by all rows of its owner.
        place: (B, L) packed index of a row's token, r * K + k.
    """

    source: Tensor
    positions: Tensor
    owner: Tensor
    text: Tensor
    place: Tensor

    @staticmethod
    def of(batch: Mapping[str, Tensor]) -> Packing | None:
        """The packing of a batch; None if rows are padded."""
        if PACKED[0] not in batch:
            return None
        return Packing(*(batch[name] for name in PACKED))

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Additive attention mask (R, 1, K, K): 0 where a position sees another, else the dtype's
        minimum.

        A position sees positions up to itself of the same owner that belong to its own row or to
        all rows. Padding sees itself, so that no softmax row is empty. Floating point, since eager
        attention would add a boolean mask as 0 and 1.
        """
        width = self.owner.shape[1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=self.owner.device).tril()
        same_owner = self.owner[:, :, None] == self.owner[:, None, :]
        own_text = self.text[:, :, None] == self.text[:, None, :]
        seen = earlier & same_owner & (own_text | (self.text == SHARED_PREFIX)[:, None, :])
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return hidden.masked_fill(~seen, torch.finfo(dtype).min).unsqueeze(1)


def hidden_at(
    model: Any,
    embeds: Tensor,
    attention_mask: Tensor,
    where: Tensor,
    packing: Packing | None,
    *,
    images: Tensor,
    image_index: Tensor,
    prompts: EncodedPrompts | None = None,
) -> Tensor:
    """Inputs of the language-model head (N, D) at the positions true in `where` (B, L).

    Args:
        attention_mask: (B, L).
        packing: None: rows are padded.
    """
    if packing is None:
        hidden = decode_hidden(model, embeds, attention_mask, prompts=prompts)[where]
    else:
        if uses_flex(model):
            mask: Any = block_mask(packing.owner, packing.text, SHARED_PREFIX)
        else:
            mask = packing.mask(embeds.dtype)
        states = decode_hidden(
            model,
            embeds.flatten(0, 1)[packing.source],
            mask,
            position_ids=packing.positions,
            prompts=None if prompts is None else prompts.in_order(),
        )
        hidden = states.flatten(0, 1)[packing.place[where]]
    row = where.nonzero()[:, 0]
    return read_images(model, hidden, row=row, images=images, image_index=image_index)
