"""Prints the results of the data checks: figures and sample ids, hardly any text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qvft.checking.findings import SplitFindings

LISTED = 5
REASONS = 8
_NUMBER = re.compile(r"\d+")
ANSWERS = 5
_LEAST, _MEDIAN, _P95, _MOST = 0, 3, 5, 6  # indices of `data.quality.distributions.SHARES`


def show_data(splits: Sequence[SplitFindings]) -> Iterator[RenderableType]:
    """Prints tables of the splits side by side, then skipped samples with reasons."""
    yield _counts(splits)
    yield _lengths(splits)
    yield _images_and_texts(splits)
    for split in splits:
        yield from _left_out(split)


def _table(title: str, splits: Sequence[SplitFindings]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for split in splits:
        table.add_column(split.name, justify="right")
    return table


def _counts(splits: Sequence[SplitFindings]) -> Table:
    table = _table("data", splits)
    for name in ("images", "captions", "questions", "rows"):
        table.add_row(name, *(f"{getattr(split, name):,}" for split in splits))
    table.add_row("images unusable", *(f"{len(split.skipped):,}" for split in splits))
    table.add_row(
        "target tokens, least / median / most",
        *("{} / {:g} / {}".format(*split.target_tokens) for split in splits),
    )
    table.add_row(
        "longest row, tokens with the image's",
        *(f"{split.longest} (id {split.longest_id})" for split in splits),
    )
    table.add_row(
        "rows cut by data.max_text_tokens",
        *(f"{split.cut_rows:,} ({split.cut_tokens:,} tokens)" for split in splits),
    )
    if any(split.cut_rows for split in splits):
        table.add_row(
            "  prompts cut / targets cut",
            *(f"{split.cut_prompts:,} / {split.cut_targets:,}" for split in splits),
        )
    if any(split.cleaned_rows for split in splits):
        table.add_row(
            "rows changed by data.text: blip2", *(f"{split.cleaned_rows:,}" for split in splits)
        )
    for kind in ("caption", "question"):
        if any(split.cut_rows and kind in split.quality.cut for split in splits):
            table.add_row(
                f"  {kind} rows cut, share of rows / of tokens",
                *(_shares(split.quality.cut.get(kind)) for split in splits),
            )
    return table


def _shares(cut: Any) -> str:
    return f"{cut['row_share']:.2%} / {cut['token_share']:.2%}" if cut else "–"


def _lengths(splits: Sequence[SplitFindings]) -> Table:
    table = _table("lengths: least / median / 95 % / most", splits)
    for kind in ("caption", "question", "answer"):
        for unit in ("words", "tokens"):
            if any(kind in split.quality.lengths for split in splits):
                table.add_row(
                    f"{kind}s, {unit}",
                    *(_quantiles(split.quality.lengths.get(kind), unit) for split in splits),
                )
    return table


def _quantiles(lengths: Any, unit: str) -> str:
    if not lengths:
        return "–"
    return " / ".join(str(lengths[unit][place]) for place in (_LEAST, _MEDIAN, _P95, _MOST))


def _images_and_texts(splits: Sequence[SplitFindings]) -> Table:
    table = _table("images and texts", splits)

    def add(name: str, value: Callable[[SplitFindings], str]) -> None:
        table.add_row(name, *(value(split) for split in splits))

    add("equal images, byte by byte", lambda s: _duplicates(s.quality.exact_duplicates))
    add("pairs of near-duplicates", lambda s: f"{len(s.quality.near_duplicates):,}")
    add("images also in the training data", _overlap)
    add("questions also asked in the training data", _asked)
    add("contradicting questions", lambda s: f"{len(s.quality.repeats['contradictions']):,}")
    add("questions asked again, same answer", lambda s: _repeat(s, "repeated_questions"))
    add("captions said again of an image", lambda s: _repeat(s, "repeated_captions"))
    if any(split.quality.answers for split in splits):
        add("different answers", lambda s: _answer(s, lambda a: f"{a['distinct']:,}"))
        add("answered yes or no", lambda s: _answer(s, lambda a: f"{a['yes_no_share']:.1%}"))
        for place in range(ANSWERS):
            if any(_common(split, place) != "–" for split in splits):
                title = "most frequent answers" if place == 0 else ""
                add(title, partial(_common, place=place))
        add("questions whose answer is new", lambda s: _answer(s, _unseen))
    add("characters lost by the tokenizer", lambda s: _characters(s, "lost"))
    if any(split.quality.spelling["broken"] for split in splits):
        add("control characters and U+FFFD", lambda s: _characters(s, "broken"))
    add("characters of 3 tokens or more", lambda s: _characters(s, "costly"))
    add("rows in another script than Latin", _other_script)
    return table


def _duplicates(groups: Sequence[Sequence[str]]) -> str:
    extra = sum(len(group) - 1 for group in groups)
    return f"{extra:,} in {len(groups):,} groups" if groups else "0"


def _overlap(split: SplitFindings) -> str:
    overlap = split.quality.overlap
    if overlap is None:
        return "–"
    near = len({pair["first"] for pair in overlap["near"]})
    return f"{len(overlap['exact']):,} equal, {near:,} near"


def _asked(split: SplitFindings) -> str:
    return "–" if split.quality.overlap is None else f"{len(split.quality.overlap['questions']):,}"


def _repeat(split: SplitFindings, key: str) -> str:
    """Number of repetitions, besides the first of each group."""
    found = split.quality.repeats[key]
    return (
        f"{sum(len(group) - 1 for group in found) if key == 'repeated_questions' else len(found):,}"
    )


def _answer(split: SplitFindings, value: Callable[[Any], str]) -> str:
    return value(split.quality.answers) if split.quality.answers else "–"


def _unseen(answers: Any) -> str:
    if answers["unseen"] is None:
        return "–"
    return f"{answers['unseen']:,} ({answers['unseen'] / answers['count']:.1%})"


def _common(split: SplitFindings, place: int) -> str:
    common = (split.quality.answers or {}).get("common", ())
    if place >= len(common):
        return "–"
    return f"{common[place]['answer']}  {common[place]['share']:.1%}"


def _characters(split: SplitFindings, key: str) -> str:
    spelling = split.quality.spelling
    if not spelling[key]:
        return "0"
    points = " ".join(f"U+{ord(one['character']):04X}" for one in spelling[key][:LISTED])
    more = " …" if len(spelling[key]) > LISTED else ""
    return f"{len(spelling[key]):,} in {spelling[f'{key}_rows']:,} rows: {points}{more}"


def _other_script(split: SplitFindings) -> str:
    spelling = split.quality.spelling
    rows, price = spelling["other_script_rows"], spelling["other_script_tokens_per_character"]
    return f"{rows / split.rows:.1%}, {price:.2f} tokens a character" if rows else "0"


def _left_out(split: SplitFindings) -> Iterator[Text]:
    """Number of unusable images per reason, then the first by id."""
    reasons = Counter(_NUMBER.sub("N", left_out.reason) for left_out in split.skipped)
    if len(split.skipped) > 1:
        for reason, count in reasons.most_common(REASONS):
            yield Text(f"unusable {split.name}: {count:,} x {reason}")
        if len(reasons) > REASONS:
            yield Text(f"unusable {split.name}: ... and {len(reasons) - REASONS:,} more reasons")
    for left_out in split.skipped[:LISTED]:
        says = [left_out.reason]
        if left_out.expected:
            says.append(f"expected {left_out.expected}")
        if left_out.do:
            says.append(left_out.do)
        yield Text(f"unusable {split.name}: {left_out.id}: {'; '.join(says)}")
    if len(split.skipped) > LISTED:
        yield Text(f"unusable {split.name}: {len(split.skipped) - LISTED:,} more (see --json)")
