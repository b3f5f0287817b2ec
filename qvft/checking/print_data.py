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
ANSWERS = 5
_NUMBER = re.compile(r"\d+")
_LEAST, _MEDIAN, _P95, _MOST = 0, 3, 5, 6  # indices of `data.quality.distributions.SHARES`
_NONE = "–"
_ZEROS = {_NONE, "0", "0 equal, 0 near", "0 (0.0%)"}


def show_data(splits: Sequence[SplitFindings]) -> Iterator[RenderableType]:
    """Tables of the splits side by side, then skipped samples with reasons."""
    yield _counts(splits)
    yield _lengths(splits)
    yield from _images_and_texts(splits)
    if any(split.quality.pairs for split in splits):
        yield _pairs(splits)
    for split in splits:
        yield from _skipped(split)


class _SideBySide(Table):
    """A table with a row per figure and a column per split."""

    def __init__(self, title: str, splits: Sequence[SplitFindings]) -> None:
        super().__init__(title=title, title_justify="left")
        self.splits = splits
        self.nothing: list[str] = []  # names of rows left out, since no split has any
        self.add_column("")
        for split in splits:
            self.add_column(split.name, justify="right")

    def add(self, name: str, value: Callable[[SplitFindings], str]) -> None:
        """Adds a row: its name, and the value of each split."""
        self.add_row(name, *map(value, self.splits))

    def add_found(self, name: str, value: Callable[[SplitFindings], str]) -> None:
        """As `add`, of a count; without any, only the name is kept."""
        cells = [value(split) for split in self.splits]
        if set(cells) <= _ZEROS:
            self.nothing.append(name)
        else:
            self.add_row(name, *cells)


def _counts(splits: Sequence[SplitFindings]) -> Table:
    table = _SideBySide("data", splits)
    for name in ("images", "captions", "questions", "pairs", "rows"):
        if name != "pairs" or any(split.pairs for split in splits):
            table.add_row(name, *(f"{getattr(split, name):,}" for split in splits))
    table.add("images unusable", lambda s: f"{len(s.skipped):,}")
    table.add(
        "target tokens, least / median / most",
        lambda s: "{} / {:g} / {}".format(*s.target_tokens),
    )
    table.add("longest row, tokens with the image's", lambda s: f"{s.longest} (id {s.longest_id})")
    table.add(
        "rows cut by data.max_text_tokens", lambda s: f"{s.cut_rows:,} ({s.cut_tokens:,} tokens)"
    )
    if any(split.cut_rows for split in splits):
        table.add("  prompts cut / targets cut", lambda s: f"{s.cut_prompts:,} / {s.cut_targets:,}")
    if any(split.cleaned_rows for split in splits):
        table.add("rows changed by data.text: blip2", lambda s: f"{s.cleaned_rows:,}")
    for kind in ("caption", "question"):
        if any(split.cut_rows and kind in split.quality.cut for split in splits):
            name = f"  {kind} rows cut, share of rows / of tokens"
            table.add_row(name, *(_shares(split.quality.cut.get(kind)) for split in splits))
    return table


def _shares(cut: Any) -> str:
    return f"{cut['row_share']:.2%} / {cut['token_share']:.2%}" if cut else _NONE


def _lengths(splits: Sequence[SplitFindings]) -> Table:
    table = _SideBySide("lengths: least / median / 95 % / most", splits)
    for kind in ("caption", "question", "answer"):
        lengths = [split.quality.lengths.get(kind) for split in splits]
        for unit in ("words", "tokens") if any(lengths) else ():
            table.add_row(f"{kind}s, {unit}", *(_quantiles(found, unit) for found in lengths))
    return table


def _quantiles(lengths: Any, unit: str) -> str:
    if not lengths:
        return _NONE
    return " / ".join(str(lengths[unit][place]) for place in (_LEAST, _MEDIAN, _P95, _MOST))


def _images_and_texts(splits: Sequence[SplitFindings]) -> Iterator[RenderableType]:
    table = _SideBySide("images and texts", splits)
    table.add_found("equal images, byte by byte", _duplicates)
    table.add_found("pairs of near-duplicates", lambda s: f"{len(s.quality.near_duplicates):,}")
    table.add_found("images also in the training data", _overlap)
    table.add_found("questions also asked in the training data", _asked)
    table.add_found(
        "contradicting questions", lambda s: f"{len(s.quality.repeats['contradictions']):,}"
    )
    table.add_found(
        "questions asked again, same answer",
        lambda s: f"{_repetitions(s.quality.repeats['repeated_questions']):,}",
    )
    table.add_found(
        "captions said again of an image",
        lambda s: f"{len(s.quality.repeats['repeated_captions']):,}",
    )
    answers = [split.quality.answers for split in splits]
    if any(answers):
        table.add_row("different answers", *(f"{a['distinct']:,}" if a else _NONE for a in answers))
        table.add_row(
            "answered yes or no", *(f"{a['yes_no_share']:.1%}" if a else _NONE for a in answers)
        )
        for place in range(ANSWERS):
            common = [_common(split, place) for split in splits]
            if any(found != _NONE for found in common):
                table.add_row("" if place else "most frequent answers", *common)
        table.add_found(
            "questions whose answer is new", lambda split: _unseen(split.quality.answers)
        )
    table.add_found("characters lost by the tokenizer", partial(_characters, key="lost"))
    if any(split.quality.spelling["broken"] for split in splits):
        table.add_found("control characters and U+FFFD", partial(_characters, key="broken"))
    table.add_found("characters of 3 tokens or more", partial(_characters, key="costly"))
    table.add_found("rows in another script than Latin", _other_script)
    yield table
    if table.nothing:
        yield Text("none: " + "; ".join(table.nothing))


def _pairs(splits: Sequence[SplitFindings]) -> Table:
    table = _SideBySide("pairs of a chosen and a rejected text", splits)

    def add(name: str, value: Callable[[Any], str]) -> None:
        table.add(name, lambda s: value(s.quality.pairs) if s.quality.pairs else _NONE)

    add(
        "tokens on average, chosen / rejected",
        lambda p: f"{p['chosen_tokens']:.1f} / {p['rejected_tokens']:.1f}",
    )
    add(
        "chosen text longer / shorter",
        lambda p: f"{p['chosen_longer']:.0%} / {p['rejected_longer']:.0%}",
    )
    for key, name in (
        ("equal", "equal texts"),
        ("contradictions", "contradicting pairs"),
        ("repeated", "repeated pairs"),
        ("reference_rejected", "rejected texts that are references"),
        ("uneven", "lengths that differ much"),
    ):
        add(name, partial(_listed, key=key))
    return table


def _listed(pairs: Any, key: str) -> str:
    return f"{len(pairs[key]):,}"


def _repetitions(groups: Sequence[Sequence[str]]) -> int:
    """Members of groups besides the first of each."""
    return sum(len(group) - 1 for group in groups)


def _duplicates(split: SplitFindings) -> str:
    groups = split.quality.exact_duplicates
    return f"{_repetitions(groups):,} in {len(groups):,} groups" if groups else "0"


def _overlap(split: SplitFindings) -> str:
    overlap = split.quality.overlap
    if overlap is None:
        return _NONE
    near = len({pair["first"] for pair in overlap["near"]})
    return f"{len(overlap['exact']):,} equal, {near:,} near"


def _asked(split: SplitFindings) -> str:
    overlap = split.quality.overlap
    return _NONE if overlap is None else f"{len(overlap['questions']):,}"


def _unseen(answers: Any) -> str:
    if not answers or answers["unseen"] is None:
        return _NONE
    return f"{answers['unseen']:,} ({answers['unseen'] / answers['count']:.1%})"


def _common(split: SplitFindings, place: int) -> str:
    common = (split.quality.answers or {}).get("common", ())
    if place >= len(common):
        return _NONE
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


def _skipped(split: SplitFindings) -> Iterator[Text]:
    """Number of unusable images per reason, then the first by id."""
    reasons = Counter(_NUMBER.sub("N", skipped.reason) for skipped in split.skipped)
    if len(split.skipped) > 1:
        for reason, count in reasons.most_common(REASONS):
            yield Text(f"unusable {split.name}: {count:,} x {reason}")
        if len(reasons) > REASONS:
            yield Text(f"unusable {split.name}: ... and {len(reasons) - REASONS:,} more reasons")
    for skipped in split.skipped[:LISTED]:
        parts = [skipped.reason]
        if skipped.expected:
            parts.append(f"expected {skipped.expected}")
        if skipped.do:
            parts.append(skipped.do)
        yield Text(f"unusable {split.name}: {skipped.id}: {'; '.join(parts)}")
    if len(split.skipped) > LISTED:
        yield Text(f"unusable {split.name}: {len(split.skipped) - LISTED:,} more (see --json)")
