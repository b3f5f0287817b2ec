"""Data checks before training: statistics, duplicates, data leakage, token lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qvft.checking.before_torch import recipe_findings
from qvft.checking.checked_split import CheckedSplit, unused_texts
from qvft.checking.findings import Findings, Quality, ShownRow, SplitFindings
from qvft.checking.pair_warnings import pair_warnings
from qvft.data.blip_text import MAX_WORDS
from qvft.data.data_warnings import data_doubts
from qvft.data.prompt import PromptTemplate
from qvft.data.quality import distributions
from qvft.data.quality import tokenizer_coverage as spelling
from qvft.data.quality.contradictions import asked_before, repeats
from qvft.data.quality.duplicates import Duplicates, duplicates
from qvft.data.quality.pair_quality import pair_quality
from qvft.data.quality.texts import normal
from qvft.data.rows import Row, choose_rows
from qvft.data.text_cleaning import cleaned_rows
from qvft.data.token_stats import encode
from qvft.recipe.schema import Recipe

EXAMPLES = 3
LISTED = 3
ALL = "all in --json"
CUT_SHARE = 0.01
"""Share of truncated rows or tokens above which there is a warning."""


def data_findings(
    splits: Sequence[CheckedSplit], template: PromptTemplate, recipe: Recipe
) -> Findings:
    """Runs all data checks on a recipe's splits."""
    samples = {checked.which: checked.split.samples for checked in splits}
    signatures = {name: one for checked in splits for name, one in checked.split.signatures.items()}
    copies = duplicates(
        samples["train"], samples.get("eval"), signatures, max_pixels=recipe.data.max_image_pixels
    )
    asked: tuple[tuple[str, str], ...] = ()
    if copies.overlap is not None:
        asked = asked_before(samples["eval"], samples["train"], copies.group)
    known = {
        normal(one.text) for one in splits[0].texts if one.kind == "answer" and not one.is_rejected
    }
    found = [
        _split_findings(checked, template, copies, known=known, asked=asked) for checked in splits
    ]
    skips = recipe.data.on_bad_image == "skip"
    warnings: list[str] = []
    for checked, one in zip(splits, found, strict=True):
        warnings += [*checked.split.remarks, *_split_warnings(one, skips=skips)]
        doubts = data_doubts(
            checked.rows,
            template,
            images=len(checked.split.samples),
            training=checked.which == "train",
        )
        warnings += [f"{checked.split.name}: {doubt}" for doubt in doubts]
    notes: list[str] = []
    if copies.overlap is None:
        warnings.append("data.eval is not set: nothing will be evaluated")
    else:
        across, notes = _leakage(copies, *splits)
        warnings += across
        if asked:
            pairs = ", ".join(f"{one} as {other}" for one, other in asked[:LISTED])
            warnings.append(
                f"{count_of(asked, 'question')} of {splits[1].split.name} asked in "
                f"{splits[0].split.name} too, of the same image, first {pairs}; take them out, the "
                f"score would count memory ({ALL})"
            )
    split = splits[0].split
    if split.stream is not None:
        read = count_of([*split.samples, *split.skipped], "record")
        message = f"{split.name} is a stream: its first {read} were read, nothing of the rest"
        notes.insert(0, message)
    return Findings(
        recipe=recipe_findings(recipe),
        train=found[0],
        eval=found[1] if len(found) > 1 else None,
        shown=tuple(_shown(row, template) for row in choose_rows(splits[0].rows, EXAMPLES)),
        warnings=tuple(warnings),
        notes=(*notes, *unused_texts(splits[0], recipe)),
        unusable=0 if skips else sum(len(checked.split.skipped) for checked in splits),
    )


def _shown(row: Row, template: PromptTemplate) -> ShownRow:
    tokens = encode(row, template)
    images, start = tokens.ids.count(template.image_token_id), tokens.target_start
    return ShownRow(row.id, row.kind, images, start - images, len(tokens.ids) - start)


def _split_findings(
    checked: CheckedSplit,
    template: PromptTemplate,
    copies: Duplicates,
    *,
    known: set[str],
    asked: Sequence[tuple[str, str]],
) -> SplitFindings:
    split, stats, texts = checked.split, checked.stats, checked.texts
    changed, shortened = cleaned_rows(checked.rows, checked.form)
    counts = spelling.token_counts(texts, template.tokenizer)
    own = checked.which == "train"
    accepted = [one for one in texts if not one.is_rejected]
    overlap = None if own else copies.overlap
    return SplitFindings(
        name=split.name,
        images=len(split.samples),
        captions=sum(len(sample.captions) for sample in split.samples),
        questions=sum(len(sample.questions) for sample in split.samples),
        rows=stats.rows,
        skipped=tuple(split.skipped),
        target_tokens=stats.target_tokens,
        longest=stats.longest,
        longest_id=stats.longest_id,
        cut_rows=stats.cut_rows,
        cut_tokens=stats.cut_tokens,
        cut_prompts=stats.cut_prompts,
        cut_targets=stats.cut_targets,
        sha256=split.sha256,
        cut_ids=stats.cut_ids,
        cleaned_rows=changed,
        shortened_ids=shortened,
        quality=Quality(
            exact_duplicates=copies.exact[checked.which],
            near_duplicates=copies.near[checked.which],
            overlap=None if overlap is None else {**asdict(overlap), "questions": tuple(asked)},
            repeats=repeats(split.samples, copies.group, texts=split.source.texts),
            answers=distributions.answers(accepted, known=None if own else known),
            lengths=distributions.lengths(accepted, counts),
            cut=stats.cut,
            spelling=spelling.spelling(texts, template.tokenizer, counts),
            pairs=pair_quality(checked.cleaned_pairs, copies.group, counts),
        ),
        pairs=sum(len(sample.pairs) for sample in split.samples),
    )


def count_of(found: Sequence[Any], noun: str) -> str:
    """`1 pair`, `1,200 pairs`."""
    return f"{len(found):,} {noun}" + ("" if len(found) == 1 else "s")


def _split_warnings(found: SplitFindings, *, skips: bool) -> list[str]:
    """Warnings about one split; `skips`: unusable images are skipped."""
    quality, name = found.quality, found.name
    warnings = []
    if found.skipped:
        fate = "skipped" if skips else "training would stop there"
        what = "replace them" if skips else "replace them, or data.on_bad_image: skip"
        count = count_of(found.skipped, "unusable image")
        warnings.append(f"{name}: {count}, {fate}; {what} ({ALL})")
    loses_tokens = any(cut.token_share > CUT_SHARE for cut in quality.cut.values())
    if found.cut_rows > CUT_SHARE * found.rows or loses_tokens:
        warnings.append(
            f"{name}: {count_of(found.cut_ids, 'row')} ({found.cut_rows / found.rows:.1%}) cut, "
            f"{found.cut_tokens:,} tokens, of {found.cut_prompts:,} prompts and "
            f"{found.cut_targets:,} targets; raise data.max_text_tokens or shorten the texts "
            f"({ALL})"
        )
    if found.shortened_ids:
        count = count_of(found.shortened_ids, "row")
        warnings.append(
            f"{name}: data.text: blip2 cuts {count} after {MAX_WORDS} words, first "
            f"{found.shortened_ids[0]}; shorten the texts ({ALL})"
        )
    extra = sum(len(group) - 1 for group in quality.exact_duplicates)
    if extra:
        first = ", ".join(quality.exact_duplicates[0][:LISTED])
        warnings.append(
            f"{name}: images there before, byte by byte: {extra:,}, first {first}; merge their "
            f"texts under one image ({ALL})"
        )
    if quality.near_duplicates:
        pair = quality.near_duplicates[0]
        warnings.append(
            f"{name}: {count_of(quality.near_duplicates, 'pair')} of images look alike, first "
            f"{pair.first} and {pair.second}; compare them, and merge the texts of copies "
            f"under one image ({ALL})"
        )
    if quality.pairs is not None:
        warnings += pair_warnings(name, quality.pairs)
    opposed = quality.repeats.contradictions
    if opposed:
        first = "; ".join(", ".join(group) for group in opposed[:LISTED])
        warnings.append(
            f"{name}: {count_of(opposed, 'question')} asked again about the same image and "
            f"answered otherwise, first {first}; decide on one answer ({ALL})"
        )
    for key, meaning in (
        ("lost", "lost by the tokenizer"),
        ("broken", "control characters or U+FFFD, a sign of damaged texts"),
    ):
        if listed := getattr(quality.spelling, key):
            points = ", ".join(one.name for one in listed[:LISTED])
            rows = getattr(quality.spelling, f"{key}_rows")
            warnings.append(
                f"{name}: {count_of(listed, 'character')} in {rows:,} rows: {meaning}, first "
                f"{points} in row {listed[0].ids[0]}; replace them in the texts ({ALL})"
            )
    return warnings


def _leakage(
    copies: Duplicates, train: CheckedSplit, other: CheckedSplit
) -> tuple[list[str], list[str]]:
    """Warnings and notes about data leakage: evaluation images that are in the training data."""
    overlap = copies.overlap
    assert overlap is not None
    count, name, of = len(other.split.samples), other.split.name, train.split.name
    advice = f"take them out of one side, or say that only questions are split ({ALL})"
    warnings, notes = [], []
    if overlap.exact:
        pairs = ", ".join(f"{one.first} as {one.second}" for one in overlap.exact[:LISTED])
        warnings.append(
            f"{len(overlap.exact)} of {count} images of {name} are also in {of}, byte by byte, "
            f"first {pairs}; {advice}"
        )
    if overlap.near:
        pairs = ", ".join(f"{one.first} like {one.second}" for one in overlap.near[:LISTED])
        near = len({one.first for one in overlap.near})
        warnings.append(
            f"{near} of {count} images of {name} look like one in {of} (another size, encoding or "
            f"crop, or two pictures of one thing), first {pairs}; compare them; {advice}"
        )
    if overlap.id_only:
        first = ", ".join(overlap.id_only[:LISTED])
        notes.append(
            f"{len(overlap.id_only)} of {count} ids, of other images, of {name} are also in {of}, "
            f"first {first}"
        )
    return warnings, notes
