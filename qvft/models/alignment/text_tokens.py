"""Tokenizes texts for the Q-Former's text branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qvft.errors import ModelError

MAX_TOKENS = 32
"""Source: LAVIS, lavis/models/blip2_models/blip2_qformer.py, `max_txt_len`."""


def check_tokenizer(tokenizer: Any, *, vocab_size: int, where: str) -> None:
    """Checks that a tokenizer can be used for the text branch.

    Raises:
        ModelError: it has no padding token, its texts do not all begin with the same special token
            (at which the contrasted embedding is read), or it has more tokens than `vocab_size`
            (the image token, which the text branch never sees, aside).
    """
    if tokenizer.pad_token_id is None:
        raise ModelError("the tokenizer has no padding token", where=where)
    first = {tokenizer(text)["input_ids"][0] for text in ("a circle", "two squares")}
    if not first <= set(tokenizer.all_special_ids) or len(first) != 1:
        raise ModelError(
            "its texts begin with no special token",
            where=where,
            expected="[CLS] or a begin-of-text token in front of every text",
            do="name a retrieval checkpoint with one in objectives.text_branch",
        )
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    size = max(id_ for token, id_ in tokenizer.get_vocab().items() if id_ != image_id) + 1
    if size > vocab_size:
        raise ModelError(
            f"the tokenizer has {size} tokens", where=where, expected=f"at most {vocab_size}"
        )


def encode_texts(
    tokenizer: Any, texts: Sequence[str], *, max_tokens: int = MAX_TOKENS
) -> tuple[Tensor, Tensor]:
    """Tokenizes texts: `input_ids` and `text_mask` (N, T) long, padded on the right, truncated at
    `max_tokens`.

    Always on the right, since the embedding is read at the first position. The mask comes from the
    lengths, never from padding ids. Truncation keeps a final special token.
    """
    rows = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), tokenizer.pad_token_id, dtype=torch.long)
    text_mask = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row)
        text_mask[index, : len(row)] = 1
    return input_ids, text_mask
