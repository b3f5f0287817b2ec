"""Start and end tokens of QVision's texts."""

from __future__ import annotations

from typing import Any

from transformers import AddedToken

START, END = "<START>", "<END>"


def add_marks(tokenizer: Any) -> Any:
    """Adds `<START>` and `<END>` to a tokenizer, if missing.

    Without a padding token the end token is used for padding, so masks must come from lengths. The
    tokenizer is changed in place.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    marks = [AddedToken(mark, special=True, normalized=False) for mark in (START, END)]
    tokenizer.add_tokens(marks, special_tokens=True)
    return tokenizer


def with_marks(tokenizer: Any) -> Any:
    """A tokenizer whose texts begin with `<START>` and end with `<END>`; as `add_marks`."""
    tokenizer = add_marks(tokenizer)
    tokenizer.bos_token, tokenizer.eos_token = START, END
    return tokenizer
