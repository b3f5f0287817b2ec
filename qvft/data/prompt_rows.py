"""Prompts of a batch for an encoder-decoder: each with its image, once.

Shape letters: B rows, E prompts, P longest prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qvft.data.padding import pad_rows
from qvft.data.prompt import TokenRow


def prompt_batch(
    tokens: Sequence[TokenRow], image_index: Sequence[int], pad_id: int
) -> tuple[dict[str, Tensor], list[int], list[int]]:
    """The encoder's input; the prompt of each of the B rows; and the first row of each prompt.

    Rows of an image with the same prompt (captions) have one; questions have one each. Padded on
    the right: T5's positions are distances.

    Returns:
        encoder_input_ids, encoder_attention_mask (E, P), encoder_index (B,), encoder_rows (E,), all
        long; and the last two as lists.
    """
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    first: list[int] = []
    index: list[int] = []
    for place, (row, image) in enumerate(zip(tokens, image_index, strict=True)):
        prompt = image, row.ids[: row.target_start]
        if prompt not in numbers:
            numbers[prompt] = len(first)
            first.append(place)
        index.append(numbers[prompt])
    padded = pad_rows([ids for _, ids in numbers], pad_id)
    return (
        {
            **{f"encoder_{name}": tensor for name, tensor in padded.items()},
            "encoder_index": torch.tensor(index),
            "encoder_rows": torch.tensor(first),
        },
        index,
        first,
    )
