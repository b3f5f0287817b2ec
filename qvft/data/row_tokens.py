"""Token lengths of each row of a split, for batches under a token budget.

Shape letters: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row


@dataclass(frozen=True)
class RowTokens:
    """Token lengths of rows.

    Attributes:
        prefix: length of the prefix shared by all rows of an image (visual prefix and `</s>`); 0
            without sharing.
        own: (N,) remaining tokens of each row.
        labels: (N,) number of supervised tokens among these.
    """

    prefix: int
    own: np.ndarray
    labels: np.ndarray


def row_tokens(rows: Sequence[Row], template: PromptTemplate, *, shares: bool) -> RowTokens:
    """Tokenizes every row, with its target, and counts its tokens.

    Args:
        shares: whether rows of an image share a prefix, see `packing.Packer.shares`.
    """
    lengths, labels = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    texts = ((row.kind, row.question, row.target) for row in rows)
    for place, tokens in enumerate(template.encode_all(texts)):
        lengths[place] = len(tokens.ids)
        labels[place] = len(tokens.ids) - tokens.target_start
    images = template.num_query_tokens if template.image_token_id is not None else 0
    prefix = images + 1 if shares else 0
    return RowTokens(prefix, lengths - prefix, labels)
