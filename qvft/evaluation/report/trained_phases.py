"""Training summary of a run for its report: phases and losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qvft.adapters.manifest import read_manifest
from qvft.evaluation.report.completions import completions_of
from qvft.evaluation.report.loss_chart import LossPoint
from qvft.evaluation.report.phases import PhaseComponent, PhaseFacts, SourceShare
from qvft.evaluation.report.preference_and_reward import preference_curve, reward_curve
from qvft.json_files import complete_lines
from qvft.recipe.phases import PhasePlan, phase_plans
from qvft.recipe.recipe_lock import read_lock
from qvft.recipe.schema import Recipe
from qvft.setup.component_counts import PhaseCounts, phase_counts
from qvft.setup.model import base_of
from qvft.setup.resolve_model import ResolvedModel


def training_facts(opened: ResolvedModel) -> dict[str, Any]:
    """Phases and curves of training in a report; empty unless a run is evaluated."""
    if opened.kind != "run" or opened.home is None:
        return {}
    # The training recipe, without overrides of the evaluation.
    recipe = read_lock(opened.home)
    plans = phase_plans(recipe)
    # An earlier attempt with another recipe may have left lines of other phases.
    names = {plan.phase.name for plan in plans}
    logged = [row for row in complete_lines(opened.home / "metrics.jsonl") if row["phase"] in names]
    # Counted on the geometry of the base, where it is now: no weights are loaded.
    counts = phase_counts(base_of(opened.recipe).config, plans)
    sources = read_manifest(opened.home / "adapter").get("sources", {})
    return {
        "phases": [
            _phase_facts(
                recipe,
                plan,
                found,
                rows=[row for row in logged if row["phase"] == plan.phase.name],
                sources=sources.get(plan.phase.name, []),
            )
            for plan, found in zip(plans, counts, strict=True)
        ],
        "loss_curve": [
            LossPoint(**{key: row[key] for key in LossPoint.model_fields if key in row})
            for row in logged
            if "loss" in row or "eval_loss" in row
        ],
        "preference_curve": preference_curve(logged),
        "reward_curve": reward_curve(logged),
        "completions": completions_of(
            line
            for line in complete_lines(opened.home / "completions.jsonl")
            if line["phase"] in names
        ),
    }


def _phase_facts(
    recipe: Recipe,
    plan: PhasePlan,
    counts: PhaseCounts,
    *,
    rows: Sequence[dict[str, Any]],
    sources: Sequence[dict[str, Any]],
) -> PhaseFacts:
    """A phase; `rows` is what it logged, `sources` what its manifest says of a list of sources."""
    train = plan.train
    heads, objectives = _objectives(recipe, plan)
    # Heads beside the model are trained where there are any.
    trained = [row.component for row in counts.components if row.trainable]
    trained += ["heads"] if heads else []
    rates = train.rates
    losses = [row["loss"] for row in rows if "loss" in row]
    all_blocks, trained_blocks = counts.decoder_blocks
    return PhaseFacts(
        name=plan.phase.name,
        objective=plan.phase.objective,
        objectives=objectives,
        components=[
            PhaseComponent(
                component=row.component,
                title="LoRA" if row.component == "adapters" else row.title,
                weights=row.total,
                trained=row.trainable,
            )
            for row in counts.components
        ],
        decoder_blocks=all_blocks,
        decoder_blocks_trained=trained_blocks,
        decoder_frozen=plan.trainable.frozen_decoder_fraction,
        learning_rates={name: rates[name] for name in trained},
        epochs=None if train.max_steps > 0 else train.epochs,
        max_steps=train.max_steps if train.max_steps > 0 else None,
        batch_size=train.per_device_train_batch_size,
        batch_tokens=train.batch_tokens,
        accumulation=train.gradient_accumulation_steps,
        steps=max((row["step"] for row in rows), default=None),
        sources=[SourceShare(**one) for one in sources],
        loss=losses[-1] if losses and math.isfinite(losses[-1]) else None,
    )


def _objectives(recipe: Recipe, plan: PhasePlan) -> tuple[bool, dict[str, float]]:
    """Whether a phase trains alignment heads, and its losses with their weights."""
    if plan.phase.objective == "preference":
        return False, recipe.preference.weights
    if plan.phase.objective == "reward":
        language = {"lm": recipe.reward.lm} if recipe.reward.lm > 0 else {}
        return False, {**recipe.reward.funcs, **language}
    given = recipe.objectives
    language = {"lm": given.lm} if given.lm > 0 else {}
    return bool(given.alignment), {**language, **given.alignment, **given.further}
