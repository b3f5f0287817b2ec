"""Padding: ragged rows of tokens to rectangular tensors.

Shape letters: B rows, L longest row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WIDTH_STEP = 8
"""Rows are padded to a multiple of this many tokens in generation, to limit the number of batch
shapes."""


def pad_rows(
    rows: Sequence[Sequence[int]], pad_id: int, *, side: str = "right", width: int = 0
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` (B, L) of token rows, padded on one side.

    L is the longest row's length, or `width` if larger. Training pads on the right, generation on
    the left. The mask comes from the lengths, not from ids: OPT's end-of-text token also begins
    every text.
    """
    longest = max(width, *(len(row) for row in rows))
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[index, span] = torch.tensor(row, dtype=torch.long)
        mask[index, span] = 1
    return {"input_ids": ids, "attention_mask": mask}
