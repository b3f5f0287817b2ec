"""`Sampled`: a text that the model wrote for a row, with its token ids."""

from __future__ import annotations

from dataclasses import dataclass

from qvft.data.rows import Row


@dataclass(frozen=True)
class Sampled:
    """A text that the model wrote for a row.

    Attributes:
        number: row number in its dataset.
        prompt: the words before it.
        prompt_ids: tokens before it, with image tokens.
        ids: its tokens, up to and including the first stop token.
        text: its text, without stop token.
        stopped: whether it ends with a stop token, not at the maximum length.
    """

    number: int
    row: Row
    prompt: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    stopped: bool
