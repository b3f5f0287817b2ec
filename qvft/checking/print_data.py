"""Prints the results of the data checks: a few lines per split, figures and sample ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qvft.checking.findings import SplitFindings

LISTED = 5
REASONS = 8
USUAL = {
    "questions asked again, same answer",
    "questions whose answer is new",
    "characters of 3 tokens or more",
    "rows in another script than Latin",
}
"""Findings that are no fault."""
_NUMBER = re.compile(r"\d+")


def data_lines(split: SplitFindings) -> Iterator[str]:
    """Counts, lengths, what was found in images and texts, answers; then unusable images."""
    counts = {name: getattr(split, name) for name in ("captions", "questions", "pairs")}
    texts = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    found = _found(split)
    state = "ok  " if not (found.keys() - USUAL or split.skipped or split.cut_rows) else ""
    yield f"{state}{split.images:,} images, {texts}: {split.rows:,} rows"
    least, median, most = split.target_tokens
    yield (
        f"targets of {least} to {most} tokens, median {median:g}; longest row {split.longest} "
        f"tokens with the image's ({split.longest_id})"
    )
    if split.cut_rows:
        yield (
            f"{split.cut_rows:,} rows cut by data.max_text_tokens: {split.cut_tokens:,} tokens, of "
            f"{split.cut_prompts:,} prompts and {split.cut_targets:,} targets"
        )
    if split.cleaned_rows:
        yield f"{split.cleaned_rows:,} rows changed by data.text: blip2"
    if answers := split.quality.answers:
        common = [f"{one['answer']} {one['share']:.1%}" for one in answers["common"][:LISTED]]
        named = f": {', '.join(common)}" if common else ""
        yield f"{answers['distinct']:,} different answers{named}"
    if pairs := split.quality.pairs:
        yield (
            f"chosen texts have {pairs['chosen_tokens']:.1f} tokens on average, rejected ones "
            f"{pairs['rejected_tokens']:.1f}"
        )
    if found:
        yield "; ".join(f"{count:,} {name}" for name, count in found.items())
    yield from _skipped(split)


def _found(split: SplitFindings) -> dict[str, int]:
    """What was found in images and texts; the warnings say what to do."""
    quality, repeats = split.quality, split.quality.repeats
    overlap: Mapping[str, Any] = quality.overlap or {"exact": (), "near": (), "questions": ()}
    pairs: Mapping[str, Any] = quality.pairs or {}
    counts = {
        "equal images, byte by byte": _repetitions(quality.exact_duplicates),
        "pairs of near-duplicates": len(quality.near_duplicates),
        "images also in the training data": len(overlap["exact"]),
        "images like one in the training data": len({one["first"] for one in overlap["near"]}),
        "questions also asked in the training data": len(overlap["questions"]),
        "contradicting questions": len(repeats["contradictions"]),
        "questions asked again, same answer": _repetitions(repeats["repeated_questions"]),
        "captions said again of an image": len(repeats["repeated_captions"]),
        "questions whose answer is new": (quality.answers or {}).get("unseen") or 0,
        "characters lost by the tokenizer": len(quality.spelling["lost"]),
        "control characters and U+FFFD": len(quality.spelling["broken"]),
        "characters of 3 tokens or more": len(quality.spelling["costly"]),
        "rows in another script than Latin": quality.spelling["other_script_rows"],
        "pairs of equal texts": len(pairs.get("equal", ())),
        "contradicting pairs": len(pairs.get("contradictions", ())),
        "repeated pairs": len(pairs.get("repeated", ())),
        "rejected texts that are references": len(pairs.get("reference_rejected", ())),
        "pairs of lengths that differ much": len(pairs.get("uneven", ())),
    }
    return {name: count for name, count in counts.items() if count}


def _repetitions(groups: Sequence[Sequence[str]]) -> int:
    """Members of groups besides the first of each."""
    return sum(len(group) - 1 for group in groups)


def _skipped(split: SplitFindings) -> Iterator[str]:
    """Number of unusable images per reason, then the first by id."""
    reasons = Counter(_NUMBER.sub("N", skipped.reason) for skipped in split.skipped)
    if len(split.skipped) > 1:
        for reason, count in reasons.most_common(REASONS):
            yield f"unusable: {count:,} x {reason}"
        if len(reasons) > REASONS:
            yield f"unusable: ... and {len(reasons) - REASONS:,} more reasons"
    for skipped in split.skipped[:LISTED]:
        parts = [skipped.reason]
        if skipped.expected:
            parts.append(f"expected {skipped.expected}")
        if skipped.do:
            parts.append(skipped.do)
        yield f"unusable: {skipped.id}: {'; '.join(parts)}"
    if len(split.skipped) > LISTED:
        yield f"unusable: {len(split.skipped) - LISTED:,} more (see --json)"
