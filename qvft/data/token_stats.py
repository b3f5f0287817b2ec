"""Token statistics of a split: lengths of its rows, truncation, rows without a token to train on.

Shape letters: N rows.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from qvft.data.prompt import PromptTemplate, TokenRow
from qvft.data.rows import Row


@dataclass(frozen=True)
class Cut:
    """Truncated rows and tokens of one kind; totals are without image tokens, `</s>` and stop."""

    rows: int
    cut_rows: int
    row_share: float
    tokens: int
    cut_tokens: int
    token_share: float


@dataclass(frozen=True)
class TokenStats:
    """Token statistics of the rows of a split, and ids of invalid rows.

    Attributes:
        target_tokens: minimum, median and maximum of supervised tokens per row, with the stop
            token.
        longest: tokens of the longest row, image tokens included; `longest_id` is its id.
        cut_rows, cut_tokens: truncated rows and tokens (`data.max_text_tokens`), `cut` per kind.
        cut_prompts, cut_targets: rows with truncated prompt, and with truncated target.
        wrong_image_tokens: rows without exactly one image token per query.
        unstopped: rows without supervised tokens, or whose last one is not the stop token.
    """

    rows: int
    target_tokens: tuple[int, float, int]
    longest: int
    longest_id: str
    cut_rows: int
    cut_tokens: int
    wrong_image_tokens: tuple[str, ...]
    unstopped: tuple[str, ...]
    most_cut_id: str | None = None
    cut: Mapping[str, Cut] = field(default_factory=dict)
    cut_ids: tuple[str, ...] = ()
    cut_prompts: int = 0
    cut_targets: int = 0


def token_stats(rows: Iterable[Row], template: PromptTemplate) -> TokenStats:
    """Tokenizes every row and counts its tokens, of which it keeps none; `rows` is not empty."""
    listed = list(rows)
    texts = ((row.kind, row.question, row.target, row.prompt) for row in listed)
    image_token, query_tokens, stop = (
        template.image_token_id, template.num_query_tokens, template.stop_id,
    )  # fmt: skip
    targets, lengths = array("l"), array("l")
    cut: list[tuple[Row, TokenRow]] = []
    wrong_image_tokens: list[str] = []
    unstopped: list[str] = []
    text_tokens: Counter[str] = Counter()
    for row, tokens in zip(listed, template.encode_all(texts), strict=True):
        target = len(tokens.ids) - tokens.target_start
        targets.append(target)
        lengths.append(len(tokens.ids))
        # Image tokens, `</s>` and stop are not text.
        text_tokens[row.kind] += len(tokens.ids) - query_tokens - 2 + tokens.cut_tokens
        if tokens.cut_tokens:
            cut.append((row, replace(tokens, ids=())))
        if tokens.ids.count(image_token) != query_tokens:
            wrong_image_tokens.append(row.id)
        if target < 2 or tokens.ids[-1] != stop:
            unstopped.append(row.id)
    longest = max(lengths)
    most_cut = max(cut, key=lambda pair: pair[1].cut_tokens, default=None)
    count = Counter(row.kind for row in listed)
    return TokenStats(
        rows=len(listed),
        target_tokens=(min(targets), float(median(targets)), max(targets)),
        longest=longest,
        longest_id=listed[lengths.index(longest)].id,
        cut_rows=len(cut),
        cut_tokens=sum(tokens.cut_tokens for _, tokens in cut),
        wrong_image_tokens=tuple(wrong_image_tokens),
        unstopped=tuple(unstopped),
        most_cut_id=most_cut[0].id if most_cut else None,
        cut={
            kind: _cut([one for row, one in cut if row.kind == kind], rows, text_tokens[kind])
            for kind, rows in count.items()
        },
        cut_ids=tuple(row.id for row, _ in cut),
        cut_prompts=sum(tokens.cut_prompt > 0 for _, tokens in cut),
        cut_targets=sum(tokens.cut_target > 0 for _, tokens in cut),
    )


def _cut(cut: list[TokenRow], rows: int, tokens: int) -> Cut:
    lost = sum(row.cut_tokens for row in cut)
    return Cut(rows, len(cut), len(cut) / rows, tokens, lost, lost / max(tokens, 1))


def encode(row: Row, template: PromptTemplate) -> TokenRow:
    """A row's tokens as in training."""
    return template.encode(row.kind, question=row.question, target=row.target, prompt=row.prompt)


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
