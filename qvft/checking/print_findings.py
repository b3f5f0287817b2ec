"""Prints the results of `qvft check RECIPE`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from qvft.checking.findings import Check, Findings, PhaseFindings, RecipeFindings, ShownRow
from qvft.checking.print_data import show_data
from qvft.setup.mixing import share_text


def show(findings: Findings, console: Console) -> None:
    """Prints the results; parts that were not checked are skipped."""
    for part in _parts(findings):
        console.print(part)


def _parts(findings: Findings) -> Iterator[RenderableType]:
    recipe = findings.recipe
    for name, value in (
        ("recipe", recipe.name),
        ("model", recipe.model),
        ("started from", recipe.started_from),
        ("decoder weights", "not quantized" if recipe.quantize == "none" else recipe.quantize),
        ("run folder", recipe.run_dir),
        ("phases", ", ".join(recipe.phases)),
        ("rows per optimizer step", ", ".join(_steps(recipe)) + " per process"),
    ):
        if value is not None:
            yield Text.assemble((f"{name:<24}", "bold"), value)
    if findings.train:
        yield from show_data([s for s in (findings.train, findings.eval) if s])
    if findings.shown:
        yield Text("rows in tokens (--preview shows their texts and images)", "bold")
        yield from (_row(shown) for shown in findings.shown)
    for phase in findings.phases:
        yield from _phase(phase)
    if findings.checks:
        yield Text("preflight", "bold")
        yield from (_check(check) for check in findings.checks)
    for note in findings.notes:
        yield Text.assemble(("note     ", "bold"), note)
    for warning in findings.warnings:
        yield Text.assemble(("warning  ", "bold yellow"), warning)


def _steps(recipe: RecipeFindings) -> Iterator[str]:
    """Rows per step of each phase, or its token budget."""
    for rows, tokens in zip(recipe.rows_per_step, recipe.tokens_per_step, strict=True):
        yield f"{rows}" if tokens is None else f"up to {tokens:,} tokens"


def _row(shown: ShownRow) -> Text:
    return Text.assemble(
        (f"{shown.kind} {shown.id}  ", "dim"),
        f"{shown.image_tokens} of the image + {shown.prompt_tokens} read + ",
        (f"{shown.supervised_tokens} learned", "green"),
    )


def _phase(phase: PhaseFindings) -> Iterator[RenderableType]:
    from qvft.adapters.component_table import component_table
    from qvft.adapters.freeze import ComponentCount

    counts = [
        ComponentCount(row.component, row.total, row.trainable, row.title)
        for row in phase.components
    ]
    yield component_table(counts, title=f"phase {phase.name}")
    yield from (Text(f"source {share_text(one)}") for one in phase.sources)
    if phase.lora_targets:
        kinds = sorted({name.rpartition(".")[2] for name in phase.lora_targets})
        yield Text(f"LoRA on {len(phase.lora_targets)} layers: {', '.join(kinds)}")
    if phase.steps is not None:
        yield Text(f"{phase.steps:,} optimizer steps on one process")
    memory = Table(title="memory, GB, by arithmetic", title_justify="left")
    for column in ("device", "weights", "trained states", "activations", "total"):
        memory.add_column(column, justify="left" if column == "device" else "right")
    for row in phase.memory:
        sizes = (row.weights, row.trained_states, row.activations, row.total)
        memory.add_row(row.device, *(f"{size / 1e9:.2f}" for size in sizes))
    yield memory
    yield Text(phase.memory_assumes, "dim")


def _check(check: Check) -> Text:
    style = "green" if check.passed else "bold red"
    mark = "ok     " if check.passed else "FAILED "
    return Text.assemble(("  " + mark, style), f"{check.name}: {check.detail}")
