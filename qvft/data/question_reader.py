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
    """Tokenizes prompts with the Q-Former's tokenizer.

    The text is the decoder's prompt, for questions and captions, as with a plain processor.

    Args:
        tokenizer: the Q-Former's tokenizer.
        most_tokens: longer texts are truncated on the left, as prompts are.
    """

    tokenizer: Any
    most_tokens: int

    def ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text with special tokens, which are all that an empty text has."""
        ids = self.tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
        return tuple(ids[max(0, len(ids) - self.most_tokens) :])

    def batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`qformer_input_ids` and `qformer_attention_mask` (B, T), padded on the right; T > 0.

        On the right in generation too: a token's position id is its column.
        """
        padded = pad_rows(rows, self.tokenizer.pad_token_id, width=1)
        return {f"qformer_{key}": value for key, value in padded.items()}
