"""Prints the results of `qvft check RECIPE`: a few lines per group, the rest is in `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from qvft.checking.findings import Check, Component, Findings, PhaseFindings, RecipeFindings
from qvft.checking.print_data import data_lines
from qvft.setup.mixing import share_text


def show(findings: Findings, console: Console) -> None:
    """Prints the results; parts that were not checked are skipped."""
    for part in _parts(findings):
        console.print(part)


def _parts(findings: Findings) -> Iterator[Text]:
    yield from _group("recipe", _recipe(findings.recipe))
    for split in (findings.train, findings.eval):
        if split is not None:
            yield from _group(f"data {split.name}", data_lines(split))
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


_STATES = {"ok  ": "green", "FAILED  ": "bold red"}


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
    total = phase.total
    share = f"{_millions(total.trainable)} of {_millions(total.total)} ({total.percent:.2f} %)"
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
    named = (
        f"{one.title or one.component} {_millions(one.trainable if trained else one.total)}"
        for one in components
        if one.total and bool(one.trainable) == trained
    )
    return ", ".join(named)


def _millions(count: int) -> str:
    from qvft.adapters.freeze import millions

    return millions(count)


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    if passed := [check.name for check in checks if check.passed]:
        yield f"ok  {'; '.join(passed)}"
    yield from (f"FAILED  {one.name}: {one.detail}" for one in checks if not one.passed)
