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
from qvft.models.forward_stages import decode_hidden, read_images

SHARED_PREFIX = -1
PACKED = tuple(f"packed_{name}" for name in ("source", "positions", "owner", "text", "place"))
"""What a batch calls its packing, in the order of `Packing`."""


@dataclass(frozen=True)
class Packing:
    """Where tokens of separate rows stand in packed ones; made by `data.packing.packed`.

    Attributes:
        source: (R, K) which token of the rows stands there, b * L + l.
        positions: (R, K) its place in its own row.
        owner: (R, K) whose it is; -1 at padding.
        text: (R, K) which row's; -1 where it belongs to all rows of its owner.
        place: (B, L) where a row's token stands, r * K + k.
    """

    source: Tensor
    positions: Tensor
    owner: Tensor
    text: Tensor
    place: Tensor

    @staticmethod
    def of(batch: Mapping[str, Tensor]) -> Packing | None:
        """The packing of a batch's rows; None where they stand by themselves."""
        if PACKED[0] not in batch:
            return None
        return Packing(*(batch[name] for name in PACKED))

    def mask(self, dtype: torch.dtype) -> Tensor:
        """(R, 1, K, K) 0 where a position sees another, the type's least number elsewhere.

        It sees what stands at or before it, of its own owner, and of that what belongs to its own
        row or to all. Padding sees itself, since a row of a softmax must have something. The mask
        is of floating point: eager attention adds it, and would add a boolean one as 0 and 1.
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
) -> Tensor:
    """What the language-model head is given (N, D) at the positions true in `where` (B, L).

    Args:
        embeds: (B, L, D) from `forward_stages.embed_rows`.
        attention_mask: (B, L).
        packing: None: each row is decoded by itself.
        images: (I, ...) from `forward_stages.encode_features`.
        image_index: (B,) which image each row belongs to.
    """
    if packing is None:
        hidden = decode_hidden(model, embeds, attention_mask)[where]
    else:
        hidden = _decoded_packed(model, embeds, packing).flatten(0, 1)[packing.place[where]]
    row = where.nonzero()[:, 0]
    return read_images(model, hidden, row=row, images=images, image_index=image_index)


def _decoded_packed(model: Any, embeds: Tensor, packing: Packing) -> Tensor:
    """The decoder's last hidden states (R, K, D) of packed rows."""
    if uses_flex(model):
        mask: Any = block_mask(packing.owner, packing.text, SHARED_PREFIX)
    else:
        mask = packing.mask(embeds.dtype)
    return decode_hidden(
        model,
        embeds.flatten(0, 1)[packing.source],
        mask,
        position_ids=packing.positions,
    )
