"""Training summary of a run for its report: phases and losses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qvft.adapters.freeze import ComponentCount
from qvft.evaluation.report.phases import PhaseComponent, PhaseFacts
from qvft.evaluation.report.report import LossPoint
from qvft.json_files import complete_lines
from qvft.recipe.phases import PhasePlan, phase_plans
from qvft.recipe.recipe_lock import read_lock
from qvft.recipe.schema import Recipe
from qvft.setup.component_counts import phase_counts
from qvft.setup.model import base_of
from qvft.setup.resolve_model import ResolvedModel


def training_facts(opened: ResolvedModel) -> dict[str, Any]:
    """`phases` and `loss_curve` of a report; empty unless a run is evaluated."""
    if opened.kind != "run" or opened.home is None:
        return {}
    # The training recipe, without overrides of the evaluation.
    recipe = read_lock(opened.home)
    phases = list(_phases(recipe, complete_lines(opened.home / "metrics.jsonl")))
    return {"phases": phases, "loss_curve": loss_curve(opened.home, recipe)}


def loss_curve(run: Path, recipe: Recipe) -> list[LossPoint]:
    """Logged losses of a run, for the phases of its recipe.

    An earlier attempt with another recipe may have left lines of other phases.
    """
    names = {plan.phase.name for plan in phase_plans(recipe)}
    kept = ("phase", "step", "loss", "eval_loss")
    return [
        LossPoint(**{key: row[key] for key in kept if key in row})
        for row in complete_lines(run / "metrics.jsonl")
        if row["phase"] in names and ("loss" in row or "eval_loss" in row)
    ]


def _phases(recipe: Recipe, metrics: Sequence[dict[str, Any]]) -> Iterator[PhaseFacts]:
    """The phases, counted on the base's geometry: no weights are loaded."""
    plans = phase_plans(recipe)
    for plan, found in zip(plans, phase_counts(base_of(recipe).config, plans), strict=True):
        components = [_component(row) for row in found.components]
        rows = [row for row in metrics if row["phase"] == plan.phase.name]
        yield _facts(recipe, plan, components, found.decoder_blocks, rows)


def _component(row: ComponentCount) -> PhaseComponent:
    return PhaseComponent(
        component=row.component,
        title="LoRA" if row.component == "adapters" else row.title,
        weights=row.total,
        trained=row.trainable,
    )


def _facts(
    recipe: Recipe,
    plan: PhasePlan,
    components: list[PhaseComponent],
    blocks: tuple[int, int],
    rows: Sequence[dict[str, Any]],
) -> PhaseFacts:
    """A phase; `blocks` are all of the decoder and those trained, `rows` what the phase logged."""
    train = plan.train
    losses = [row["loss"] for row in rows if "loss" in row]
    return PhaseFacts(
        name=plan.phase.name,
        objectives=_objectives(recipe, plan),
        components=components,
        decoder_blocks=blocks[0],
        decoder_blocks_trained=blocks[1],
        decoder_frozen=plan.trainable.frozen_decoder_fraction,
        learning_rates=_learning_rates(recipe, plan, components),
        epochs=None if train.max_steps > 0 else train.epochs,
        max_steps=train.max_steps if train.max_steps > 0 else None,
        batch_size=train.per_device_train_batch_size,
        batch_tokens=train.batch_tokens,
        accumulation=train.gradient_accumulation_steps,
        steps=max((row["step"] for row in rows), default=None),
        loss=losses[-1] if losses and math.isfinite(losses[-1]) else None,
    )


def _objectives(recipe: Recipe, plan: PhasePlan) -> dict[str, float]:
    objectives = recipe.objectives
    language = {"lm": objectives.lm} if objectives.lm > 0 else {}
    return {**language, **objectives.alignment, **objectives.further}


def _learning_rates(
    recipe: Recipe, plan: PhasePlan, components: Sequence[PhaseComponent]
) -> dict[str, float]:
    """Of what the phase trains; heads beside the model are among it where there are any."""
    trained = [part.component for part in components if part.trained]
    if recipe.objectives.alignment:
        trained.append("heads")
    rates = plan.train.learning_rate.model_dump()
    return {name: rates[name] for name in trained}
