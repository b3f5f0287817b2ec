"""Tokenizes the question for a question-aware Q-Former.

Shape letters: B rows, T tokens of the longest text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qvft.data.padding import pad_rows


@dataclass(frozen=True)
class QuestionReader:
    """Tokens of prompts in the Q-Former's own vocabulary.

    It reads the words that stand before the target in the decoder, for questions and captions
    alike: a plain processor hands the same text to both.

    Args:
        tokenizer: the Q-Former's.
        most_tokens: longer texts lose tokens from their left, as prompts do.
    """

    tokenizer: Any
    most_tokens: int

    def ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text, with the tokenizer's own marks, which are all that an empty one has."""
        ids = self.tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
        return tuple(ids[max(0, len(ids) - self.most_tokens) :])

    def batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`qformer_input_ids` and `qformer_attention_mask` (B, T), padded on the right; T > 0.

        On the right in generation too: a word's position is its column.
        """
        padded = pad_rows(rows, self.tokenizer.pad_token_id, width=1)
        return {f"qformer_{key}": value for key, value in padded.items()}
