"""`qvft check RECIPE`: runs all checks of a recipe without training, the preflight among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from qvft.adapters.lora import lora_targets
from qvft.checking.before_torch import recipe_findings
from qvft.checking.check_data import data_findings
from qvft.checking.check_memory import geometry_phases, known_base, phase_findings
from qvft.checking.checked_split import CheckedSplit, read_splits
from qvft.checking.findings import Check, Findings, PhaseFindings
from qvft.checking.preview import preview
from qvft.data.collate import Collator
from qvft.data.token_stats import TokenStats
from qvft.errors import CheckpointError, ModelError, PreflightError
from qvft.evaluation import available_metrics
from qvft.evaluation.rewards import reward_functions
from qvft.evaluation.rows import prediction_rows
from qvft.evaluation.scoring import text_scores
from qvft.recipe.phases import PhasePlan, phase_plans
from qvft.recipe.schema import Recipe
from qvft.setup.data import Texts
from qvft.setup.learning_rates import with_rates
from qvft.setup.model import base_of, device, processor_of
from qvft.setup.prompt_template import require_rows_to_fit, template_of
from qvft.setup.start_run import start_run
from qvft.setup.start_weights import require_places, require_same_base
from qvft.training.arguments import recompute_activations, use_bf16
from qvft.training.preflight import check_backward, check_image_matters, preflight_batch
from qvft.training.prepare_training import prepare_training, require_settings
from qvft.training.run_folder import check_folder, rates_from_lock, resolve_revision
from qvft.training.run_warnings import phase_warnings
from qvft.training.training_run import TrainingRun

LISTED = 3


def check_all(
    recipe: Recipe, preview_file: Path | None = None, *, texts: Texts | None = None
) -> Findings:
    """Checks data, weights and preflight; only the data if there are unusable images.

    Raises UserError as training would before its first step.
    """
    base = base_of(recipe)
    recipe = with_rates(rates_from_lock(recipe), base)
    require_settings(recipe, base, phase_plans(recipe))
    start = start_run(recipe)
    if start is not None:  # reported before the data are read
        require_same_base(start, recipe, base)
    found, splits = _check_data(recipe, preview_file, texts)
    if found.unusable:
        return found
    stats, texts = splits[0].stats, dict(texts or {})
    for one in splits:
        if one.which in texts:  # with images that are not validated again
            given = texts[one.which]
            texts[one.which] = replace(given, samples=one.split.samples, skipped=one.split.skipped)
    work = prepare_training(recipe, texts=texts, rewards=reward_functions, scores=text_scores)
    warnings = [*found.warnings, *phase_warnings(work)]
    try:
        check_folder(resolve_revision(recipe))
    except CheckpointError as error:
        warnings.append(str(error))
    return replace(
        found,
        phases=tuple(_phase(work, plan, row_tokens=stats.longest) for plan in work.plans),
        checks=_preflight(work, stats),
        warnings=tuple(warnings),
    )


def check_data(
    recipe: Recipe, preview_file: Path | None = None, *, texts: Texts | None = None
) -> Findings:
    """Checks only the data; reads only the model's processor. Arguments as `check_all`."""
    return _check_data(recipe, preview_file, texts)[0]


def check_model(recipe: Recipe) -> Findings:
    """Component table and memory estimate only; reads neither data nor weights."""
    base = known_base(recipe)
    if base is None:
        base = base_of(recipe)
        template_of(recipe, base, processor_of(recipe, base))
    else:
        require_rows_to_fit(recipe, base)
    start = start_run(recipe)
    if start is not None:
        require_places(start, base.config, phase_plans(recipe))
    return Findings(
        recipe=recipe_findings(recipe),
        phases=geometry_phases(recipe, base.config),
    )


def _check_data(
    recipe: Recipe, preview_file: Path | None, texts: Texts | None
) -> tuple[Findings, list[CheckedSplit]]:
    """Results of the data checks, and the checked splits, the training data first."""
    base = base_of(recipe)
    processor = processor_of(recipe, base)
    template = template_of(recipe, base, processor)
    available_metrics.require_installed_metrics(recipe.eval.metrics)
    splits = read_splits(recipe, template, texts)
    train = splits[0]
    scored = [row for row in splits[-1].rows if row.rejected is None]
    if len(splits) > 1 and scored:
        available_metrics.require_fitting_metrics(recipe.eval.metrics, prediction_rows(scored))
    if preview_file is not None:
        collator = Collator(template, processor.image_processor, recipe.data.max_image_pixels)
        preview(preview_file, train.rows, train.stats, collator, name=train.split.name)
    return data_findings(splits, template, recipe), splits


def _phase(work: TrainingRun, plan: PhasePlan, *, row_tokens: int) -> PhaseFindings:
    targets: tuple[str, ...] = ()
    if work.loaded.handle is not None:
        part, trained = work.loaded.base.family.part, plan.trainable.lora_parts
        targets = tuple(n for n in lora_targets(work.loaded.handle) if part(n) in trained)
    found = phase_findings(
        work.recipe,
        plan,
        work.counts(plan),
        work.loaded.base.config,
        lora_targets=targets,
        row_tokens=row_tokens,
        steps=work.steps(plan),
    )
    return replace(found, sources=tuple(work.source_shares(plan)))


def _preflight(work: TrainingRun, stats: TokenStats) -> tuple[Check, ...]:
    """Runs all preflight checks of each phase; weights are not changed."""
    template = work.loaded.template
    checks = [
        _attempt("the stop text is one token", lambda: f"token {template.stop_id}"),
        _rows_check(
            f"every row holds {template.num_query_tokens} image tokens",
            stats.wrong_image_tokens,
            stats.rows,
        ),
        _rows_check(
            "every row's supervised span ends in the stop token", stats.unstopped, stats.rows
        ),
    ]
    if work.loaded.handle is not None:
        count = len(lora_targets(work.loaded.handle))
        checks.append(Check("LoRA targets are found", True, f"{count} layers"))
    for plan in work.plans:
        checks.extend(_phase_checks(work, plan))
    return tuple(checks)


def _phase_checks(work: TrainingRun, plan: PhasePlan) -> list[Check]:
    work.counts(plan)
    loaded, phase = work.loaded, plan.phase.name
    recompute_activations(loaded.model, plan.train.gradient_checkpointing)
    rows = work.rows(plan, work.train, training=True)
    module, collator = work.objective(plan, rows)
    place = device()
    asked = list(enumerate(rows))
    if work.branch is not None and plan.phase.objective == "language":
        # Heads are trained on captions only.
        asked = [(index, row) for index, row in asked if row.kind == "caption"]
        work.branch.heads.to(place)
    batch = preflight_batch(collator, asked, place)

    def swap() -> str:
        if int(batch["image_index"].max()) == 0:
            return "not checked: there is one image only"
        return f"a row's loss moves by {check_image_matters(module, batch):.2g} nats a token"

    def gradients() -> str:
        largest = check_backward(module, loaded.model, loaded.base.family, batch)
        return ", ".join(f"{name} {value:.2g}" for name, value in largest.items())

    bf16 = use_bf16(plan.train.mixed_precision)
    with torch.autocast(place.type, dtype=torch.bfloat16, enabled=bf16):
        return [
            _attempt(f"{phase}: exchanging images moves the loss", swap),
            _attempt(f"{phase}: a gradient reaches every trained component", gradients),
        ]


def _attempt(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (ModelError, PreflightError) as error:
        return Check(name, False, str(error))


def _rows_check(name: str, wrong: Sequence[str], rows: int) -> Check:
    if not wrong:
        return Check(name, True, f"all {rows:,}")
    return Check(
        name, False, f"{len(wrong):,} of {rows:,} do not, first {', '.join(wrong[:LISTED])}"
    )
