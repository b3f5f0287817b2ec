"""Prints the results of `qvft check RECIPE`: a few lines per group, the rest is in `--json`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from qvft.checking.findings import (
    Check,
    Component,
    Findings,
    PhaseFindings,
    RecipeFindings,
    SplitFindings,
)
from qvft.setup.mixing import share_text

LISTED = 5
REASONS = 8
USUAL = {
    "questions asked again, same answer",
    "questions whose answer is new",
    "characters of 3 tokens or more",
    "rows in another script than Latin",
}
"""Findings that are no fault."""
_STATES = {"ok  ": "green", "FAILED  ": "bold red"}


def show(findings: Findings, console: Console) -> None:
    """Prints the results; parts that were not checked are skipped."""
    for part in _parts(findings):
        console.print(part)


def _parts(findings: Findings) -> Iterator[Text]:
    yield from _group("recipe", _recipe(findings.recipe))
    for split in (findings.train, findings.eval):
        if split is not None:
            yield from _group(f"data {split.name}", _data(split))
    if findings.shown:
        first = {one.kind: one for one in reversed(findings.shown)}  # of each kind
        rows = (
            f"{kind} {one.id}: {one.image_tokens} image + {one.prompt_tokens} prompt + "
            f"{one.supervised_tokens} target"
            for kind, one in first.items()
        )
        yield from _group("tokens per row", rows)
    for phase in findings.phases:
        yield from _group(f"phase {phase.name}", _phase(phase))
    if findings.checks:
        yield from _group("preflight", _checks(findings.checks))
    for note in findings.notes:
        yield Text.assemble(("note  ", "bold"), note)
    for warning in findings.warnings:
        yield Text.assemble(("warning  ", "bold yellow"), warning)


def _group(title: str, lines: Iterable[str]) -> Iterator[Text]:
    """A group's lines, indented below its title or beside a short one."""
    width = 16
    if len(title) >= width:
        yield Text(title, "bold")
        title = ""
    for line in lines:
        style = next((s for word, s in _STATES.items() if line.startswith(word)), "")
        yield Text.assemble((f"{title:<{width}}", "bold"), (line, style))
        title = ""


def _recipe(recipe: RecipeFindings) -> Iterator[str]:
    weights = "not quantized" if recipe.quantize == "none" else recipe.quantize
    start = f", started from {recipe.started_from}" if recipe.started_from else ""
    yield f"{recipe.name}: {recipe.model}, decoder {weights}{start}; run folder {recipe.run_dir}"
    steps = zip(recipe.phases, recipe.rows_per_step, recipe.tokens_per_step, strict=True)
    phases = (
        f"{phase}: {f'{rows} rows' if tokens is None else f'up to {tokens:,} tokens'}"
        for phase, rows, tokens in steps
    )
    yield f"per optimizer step and process, phase {', '.join(phases)}"


def _phase(phase: PhaseFindings) -> Iterator[str]:
    from qvft.adapters.freeze import millions  # which imports torch

    total = phase.total
    share = f"{millions(total.trainable)} of {millions(total.total)} ({total.percent:.2f} %)"
    yield f"trained {share}: {_components(phase.components, trained=True)}"
    yield f"frozen: {_components(phase.components, trained=False)}"
    yield from (f"source {share_text(one)}" for one in phase.sources)
    if phase.lora_targets:
        kinds = sorted({name.rpartition(".")[2] for name in phase.lora_targets})
        yield f"LoRA on {len(phase.lora_targets)} layers: {', '.join(kinds)}"
    if phase.steps is not None:
        yield f"{phase.steps:,} optimizer steps on one process"
    for row in phase.memory:
        yield (
            f"memory, {row.device}: {row.total / 1e9:.2f} GB by arithmetic: weights "
            f"{row.weights / 1e9:.2f}, trained states {row.trained_states / 1e9:.2f}, activations "
            f"{row.activations / 1e9:.2f}"
        )
    yield phase.memory_assumes


def _components(components: Iterable[Component], *, trained: bool) -> str:
    """Names and sizes of the parts with trained weights, or of those without."""
    from qvft.adapters.freeze import millions

    named = (
        f"{one.title or one.component} {millions(one.trainable if trained else one.total)}"
        for one in components
        if one.total and bool(one.trainable) == trained
    )
    return ", ".join(named)


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    if passed := [check.name for check in checks if check.passed]:
        yield f"ok  {'; '.join(passed)}"
    yield from (f"FAILED  {one.name}: {one.detail}" for one in checks if not one.passed)


def _data(split: SplitFindings) -> Iterator[str]:
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
        common = [f"{one.answer} {one.share:.1%}" for one in answers.common[:LISTED]]
        named = f": {', '.join(common)}" if common else ""
        yield f"{answers.distinct:,} different answers{named}"
    if pairs := split.quality.pairs:
        yield (
            f"chosen texts have {pairs.chosen_tokens:.1f} tokens on average, rejected ones "
            f"{pairs.rejected_tokens:.1f}"
        )
    if found:
        yield "; ".join(f"{count:,} {name}" for name, count in found.items())
    yield from _skipped(split)


def _found(split: SplitFindings) -> dict[str, int]:
    """What was found in images and texts; the warnings say what to do."""
    quality, repeats = split.quality, split.quality.repeats
    overlap: Mapping[str, Any] = quality.overlap or {"exact": (), "near": (), "questions": ()}
    answers, pairs = quality.answers, quality.pairs
    counts = {
        "equal images, byte by byte": _repetitions(quality.exact_duplicates),
        "pairs of near-duplicates": len(quality.near_duplicates),
        "images also in the training data": len(overlap["exact"]),
        "images like one in the training data": len({one["first"] for one in overlap["near"]}),
        "questions also asked in the training data": len(overlap["questions"]),
        "contradicting questions": len(repeats.contradictions),
        "questions asked again, same answer": _repetitions(repeats.repeated_questions),
        "captions said again of an image": len(repeats.repeated_captions),
        "questions whose answer is new": (answers and answers.unseen) or 0,
        "characters lost by the tokenizer": len(quality.spelling.lost),
        "control characters and U+FFFD": len(quality.spelling.broken),
        "characters of 3 tokens or more": len(quality.spelling.costly),
        "rows in another script than Latin": quality.spelling.other_script_rows,
        "pairs of equal texts": len(pairs.equal if pairs else ()),
        "contradicting pairs": len(pairs.contradictions if pairs else ()),
        "repeated pairs": len(pairs.repeated if pairs else ()),
        "rejected texts that are references": len(pairs.reference_rejected if pairs else ()),
        "pairs of lengths that differ much": len(pairs.uneven if pairs else ()),
    }
    return {name: count for name, count in counts.items() if count}


def _repetitions(groups: Sequence[Sequence[str]]) -> int:
    """Members of groups besides the first of each."""
    return sum(len(group) - 1 for group in groups)


def _skipped(split: SplitFindings) -> Iterator[str]:
    """Number of unusable images per reason, then the first by id."""
    reasons = Counter(re.sub(r"\d+", "N", skipped.reason) for skipped in split.skipped)
    if len(split.skipped) > 1:
        for reason, count in reasons.most_common(REASONS):
            yield f"unusable: {count:,} x {reason}"
        if len(reasons) > REASONS:
            yield f"unusable: ... and {len(reasons) - REASONS:,} more reasons"
    for skipped in split.skipped[:LISTED]:
        expected = skipped.expected and f"expected {skipped.expected}"
        parts = filter(None, (skipped.reason, expected, skipped.do))
        yield f"unusable: {skipped.id}: {'; '.join(parts)}"
    if len(split.skipped) > LISTED:
        yield f"unusable: {len(split.skipped) - LISTED:,} more (see --json)"
