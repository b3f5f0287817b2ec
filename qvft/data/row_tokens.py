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
    """Tokenizes every row, with its target, and counts its tokens; of a pair those of both rows, of
    a sampled answer those of the longest. `shares` as `packing.Packer.shares`.
    """
    lengths, labels = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    owners = [place for place, row in enumerate(rows) for _ in _targets(row)]
    texts = (
        (row.kind, row.question, target, row.prompt) for row in rows for target in _targets(row)
    )
    images = template.num_query_tokens if template.image_token_id is not None else 0
    prefix = images + 1 if shares else 0
    for place, tokens in zip(owners, template.encode_all(texts), strict=True):
        own, supervised = len(tokens.ids) - prefix, len(tokens.ids) - tokens.target_start
        if rows[place].sampled:
            lengths[place] = max(lengths[place], own)
            labels[place] = max(labels[place], supervised)
        else:
            lengths[place] += own
            labels[place] += supervised
    return RowTokens(prefix, lengths, labels)


def _targets(row: Row) -> tuple[str, ...]:
    if row.sampled:
        return tuple(dict.fromkeys(row.references))
    return (row.target,) if row.rejected is None else (row.target, row.rejected)
