"""Token statistics of a split: lengths, truncation, and rows without a token to train on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

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
        target_tokens: minimum, median and maximum of supervised tokens per row, including the stop
            token.
        longest: tokens of the longest row, image tokens included; `longest_id` is its id.
        cut_rows, cut_tokens: truncated rows and tokens (`data.max_text_tokens`).
        most_cut_id: the row with the most truncated tokens, or None.
        cut: truncation per kind of row.
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
    """Tokenizes every row and counts its tokens; `rows` is not empty."""
    targets: list[int] = []
    longest, longest_id = 0, ""
    cut_tokens = cut_prompts = cut_targets = 0
    cut_ids: list[str] = []
    wrong: list[str] = []
    unstopped: list[str] = []
    most_cut, most_cut_id = 0, None
    kinds: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        tokens = encode(row, template)
        targets.append(len(tokens.ids) - tokens.target_start)
        if len(tokens.ids) > longest:
            longest, longest_id = len(tokens.ids), row.id
        if tokens.cut_tokens:
            cut_ids.append(row.id)
        cut_tokens += tokens.cut_tokens
        cut_prompts += tokens.cut_prompt > 0
        cut_targets += tokens.cut_target > 0
        if tokens.cut_tokens > most_cut:
            most_cut, most_cut_id = tokens.cut_tokens, row.id
        # Image tokens, `</s>` and stop are not text.
        text = len(tokens.ids) - template.num_query_tokens - 2
        kinds.setdefault(row.kind, []).append((text + tokens.cut_tokens, tokens.cut_tokens))
        if tokens.ids.count(template.image_token_id) != template.num_query_tokens:
            wrong.append(row.id)
        if targets[-1] < 2 or tokens.ids[-1] != template.stop_id:
            unstopped.append(row.id)
    return TokenStats(
        len(targets),
        (min(targets), float(median(targets)), max(targets)),
        longest,
        longest_id,
        len(cut_ids),
        cut_tokens,
        tuple(wrong),
        tuple(unstopped),
        most_cut_id,
        {kind: _cut(lengths) for kind, lengths in kinds.items()},
        tuple(cut_ids),
        cut_prompts,
        cut_targets,
    )


def _cut(lengths: list[tuple[int, int]]) -> Cut:
    """From pairs (tokens in total, tokens truncated), one per row."""
    tokens, lost = (sum(column) for column in zip(*lengths, strict=True))
    rows = sum(cut > 0 for _, cut in lengths)
    return Cut(len(lengths), rows, rows / len(lengths), tokens, lost, lost / max(tokens, 1))


def encode(row: Row, template: PromptTemplate) -> TokenRow:
    """A row's tokens as in training."""
    return template.encode(row.kind, question=row.question, target=row.target)
