"""Counts the rows that `data.max_text_tokens` truncates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qvft.data.collate import QuestionReader
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, single_texts

_BATCH = 10_000


@dataclass(frozen=True)
class CutRows:
    """Numbers of truncated rows, by prompts (at their start) and targets (at their end), and of
    truncated tokens; `first` is the id, or image name, of the first such row.
    """

    rows: int
    prompts: int
    targets: int
    tokens: int
    first: str | None

    def warning(self, limit: int) -> list[str]:
        """Warning text; empty if nothing is truncated."""
        if self.first is None:
            return []
        return [
            f"of {self.rows:,} texts data.max_text_tokens ({limit}) cuts {self.prompts:,} prompts "
            f"(at their beginning) and {self.targets:,} targets (at their end), {self.tokens:,} "
            f"tokens in all, first {self.first}; raise it or shorten the texts"
        ]


def cut_rows(rows: Sequence[Row], template: PromptTemplate, *, asked: bool = False) -> CutRows:
    """Tokenizes every row, of a pair both texts, and counts truncation. With `asked` prompts are
    those of inference, without target, which leaves them more tokens.
    """
    rows = single_texts(rows)
    prompts = targets = tokens = 0
    first = None
    trained = template.encode_all((row.kind, row.question, row.target, row.prompt) for row in rows)
    inputs = template.encode_all((row.kind, row.question, None, row.prompt) for row in rows)
    for row, target in zip(rows, trained, strict=True):
        cut_prompt = (next(inputs) if asked else target).cut_prompt
        prompts += cut_prompt > 0
        targets += target.cut_target > 0
        tokens += cut_prompt + target.cut_target
        if first is None and cut_prompt + target.cut_target:
            first = row.id or row.sample.image.name
    return CutRows(len(rows), prompts, targets, tokens, first)


def cut_warnings(
    rows: Sequence[Row],
    template: PromptTemplate,
    reader: QuestionReader | None,
    *,
    asked: bool = False,
    cut: CutRows | None = None,
) -> list[str]:
    """Warnings about texts truncated for the decoder, and for a Q-Former that reads prompts with
    `reader`. `cut` are their `cut_rows`, if already counted.
    """
    cut = cut or cut_rows(rows, template, asked=asked)
    found = cut.warning(template.max_text_tokens)
    if reader is not None:
        prompts = [template.prompt_text(*row.asked) for row in rows]
        if unseen := too_long(prompts, reader.tokenizer, reader.most_tokens):
            found.append(
                f"the Q-Former reads {reader.most_tokens} tokens: it does not see the beginning of "
                f"{unseen:,} of {len(rows):,} prompts"
            )
    return found


def text_branch_warnings(texts: Sequence[str], tokenizer: Any, limit: int) -> list[str]:
    """Warning about captions truncated for the text branch."""
    cut = too_long(texts, tokenizer, limit)
    return [
        f"the text branch of itc, itm and itg reads {limit} tokens: it does not see the end of "
        f"{cut:,} of {len(texts):,} captions"
    ] * (cut > 0)


def too_long(texts: Sequence[str], tokenizer: Any, limit: int) -> int:
    """Number of texts with more than `limit` tokens, including special tokens."""
    lengths: dict[str, int] = {}
    different = list(dict.fromkeys(texts))
    for start in range(0, len(different), _BATCH):
        batch = different[start : start + _BATCH]
        ids = tokenizer(batch, split_special_tokens=True, verbose=False)["input_ids"]
        lengths |= {text: len(tokens) for text, tokens in zip(batch, ids, strict=True)}
    return sum(lengths[text] > limit for text in texts)
