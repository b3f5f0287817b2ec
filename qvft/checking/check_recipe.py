"""`qvft check RECIPE`: runs all checks of a recipe without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qvft.adapters.lora import lora_targets
from qvft.checking.build_preview import preview
from qvft.checking.check_data import data_found, read_sides
from qvft.checking.check_memory import config_of, geometry_phases, phase_findings
from qvft.checking.check_preflight import preflight_checks
from qvft.checking.findings import Findings, PhaseFindings
from qvft.checking.recipe_summary import recipe_findings
from qvft.data.collate import Collator
from qvft.data.token_stats import TokenStats
from qvft.errors import CheckpointError
from qvft.evaluation.available_metrics import (
    prediction_rows,
    require_fitting_metrics,
    require_installed_metrics,
)
from qvft.recipe.phases import PhasePlan, phase_plans
from qvft.recipe.schema import Recipe
from qvft.setup.data import Texts
from qvft.setup.model import base_of, processor_of, template_of
from qvft.training.resolve_revision import resolve_revision
from qvft.training.run_folder import check_folder
from qvft.training.settings_check import require_settings
from qvft.training.training_setup import TrainingSetup, training_setup


def check_all(
    recipe: Recipe, preview_file: Path | None = None, *, texts: Texts | None = None
) -> Findings:
    """Checks data, weights and preflight; only the data if there are unusable images.

    Args:
        recipe: the recipe to check.
        preview_file: file of the HTML preview, or None.
        texts: the recipe's data, if already read.

    Raises:
        UserError: as training would before its first step.
    """
    require_settings(recipe, base_of(recipe), phase_plans(recipe))
    found, stats = _check_data(recipe, preview_file, texts)
    if found.unusable:
        return found
    work = training_setup(recipe, texts=texts)
    return replace(
        found,
        phases=tuple(_phase(work, plan, row_tokens=stats.longest) for plan in work.plans),
        checks=preflight_checks(work, stats),
        warnings=(
            *found.warnings,
            *work.further_warnings(),
            *_folder_warnings(recipe),
        ),
    )


def check_data(
    recipe: Recipe, preview_file: Path | None = None, *, texts: Texts | None = None
) -> Findings:
    """Checks only the data; reads only the model's processor. Arguments as `check_all`."""
    return _check_data(recipe, preview_file, texts)[0]


def check_model(recipe: Recipe) -> Findings:
    """Component table and memory estimate only; reads neither data nor weights."""
    config = config_of(recipe)
    return Findings(
        recipe=recipe_findings(recipe),
        phases=geometry_phases(recipe, config),
    )


def _check_data(
    recipe: Recipe, preview_file: Path | None, texts: Texts | None
) -> tuple[Findings, TokenStats]:
    """Results of the data checks, and the training rows' token counts."""
    base = base_of(recipe)
    processor = processor_of(recipe, base)
    template = template_of(recipe, base, processor)
    require_installed_metrics(recipe.eval.metrics)
    sides = read_sides(recipe, template, texts)
    train = sides[0]
    if len(sides) > 1:
        asked = prediction_rows(sides[1].rows, [""] * len(sides[1].rows))
        require_fitting_metrics(recipe.eval.metrics, asked)
    if preview_file is not None:
        collator = Collator(template, processor.image_processor, recipe.data.max_image_pixels)
        preview(preview_file, train.rows, train.stats, collator, name=train.split.name)
    found = data_found(sides, template, recipe)
    stops = recipe.data.on_bad_image == "error"
    return (
        Findings(
            recipe=recipe_findings(recipe),
            train=found.train,
            eval=found.eval,
            shown=found.shown,
            warnings=found.warnings,
            notes=found.notes,
            unusable=sum(len(side.split.skipped) for side in sides) if stops else 0,
        ),
        train.stats,
    )


def _folder_warnings(recipe: Recipe) -> list[str]:
    try:
        check_folder(resolve_revision(recipe))
    except CheckpointError as error:
        return [str(error)]
    return []


def _phase(work: TrainingSetup, plan: PhasePlan, *, row_tokens: int) -> PhaseFindings:
    targets: tuple[str, ...] = ()
    if work.loaded.handle is not None and plan.trainable.decoder == "lora":
        targets = lora_targets(work.loaded.handle)
    return phase_findings(
        work.recipe,
        plan,
        work.counts(plan),
        work.loaded.base.config,
        lora_targets=targets,
        row_tokens=row_tokens,
        steps=work.steps(plan),
    )
