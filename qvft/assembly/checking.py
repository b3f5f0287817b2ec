"""From a recipe to everything that can be said before the first step."""

from __future__ import annotations

import math

from qvft.adapters.lora import lora_targets
from qvft.assembly.data import Split, read_split
from qvft.assembly.geometry import config_of, geometry_phases, is_trainable, phase_findings
from qvft.assembly.model import base_of, template_of
from qvft.assembly.preflight import preflight_checks
from qvft.assembly.training import PhasePlan, TrainingWork, training_work
from qvft.checking.findings import Findings, LeftOut, PhaseFindings, SplitFindings, TextShown
from qvft.checking.recipe import recipe_findings
from qvft.data.overlap import shared_images
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, evaluation_rows, training_rows
from qvft.data.token_stats import TokenStats, shown_rows, token_stats
from qvft.errors import CheckpointError, RecipeError
from qvft.models.load import load_processor
from qvft.recipe.schema import Recipe
from qvft.training.run import check_folder

EXAMPLES = 3
LISTED = 3


def check_all(recipe: Recipe) -> Findings:
    """Data, weights and preflight.

    Raises:
        UserError: whatever training would raise before its first step.
    """
    work = training_work(recipe)
    evaluation = work.eval or _evaluation(recipe)
    stats = token_stats(_training_rows(work.train), work.loaded.template)
    found = _data_findings(recipe, work.loaded.template, work.train, evaluation, stats)
    return Findings(
        recipe=recipe_findings(recipe),
        train=found.train,
        eval=found.eval,
        shown=found.shown,
        phases=tuple(_phase(work, plan, row_tokens=stats.longest) for plan in work.plans),
        checks=preflight_checks(work, stats),
        warnings=(*found.warnings, *_folder_warnings(recipe)),
    )


def check_data(recipe: Recipe) -> Findings:
    """The data alone; of the model only the processor is read."""
    base = base_of(recipe)
    template = template_of(recipe, base, load_processor(base))
    train = read_split(recipe, "train")
    stats = token_stats(_training_rows(train), template)
    return _data_findings(recipe, template, train, _evaluation(recipe), stats)


def check_model(recipe: Recipe) -> Findings:
    """The component table and the memory alone; neither data nor weights are read."""
    config = config_of(recipe)
    warnings = []
    if not is_trainable(config):
        warnings.append(
            f"the decoder of {recipe.model.id} is an encoder-decoder: its weights are counted, but "
            "qvft trains OPT decoders only"
        )
    return Findings(
        recipe=recipe_findings(recipe),
        phases=geometry_phases(recipe, config),
        warnings=tuple(warnings),
    )


def _data_findings(
    recipe: Recipe,
    template: PromptTemplate,
    train: Split,
    evaluation: Split | None,
    stats: TokenStats,
) -> Findings:
    sides = [_split_findings(train, stats)]
    if evaluation is not None:
        rows = evaluation_rows(evaluation.samples, texts=evaluation.source.texts)
        if not rows:
            raise RecipeError("holds no text to evaluate on", where="data.eval")
        sides.append(_split_findings(evaluation, token_stats(rows, template)))
    shown = tuple(
        TextShown(row.id, row.kind, row.image_tokens, row.prompt, row.supervised)
        for row in shown_rows(_training_rows(train), template, count=EXAMPLES)
    )
    return Findings(
        recipe=recipe_findings(recipe),
        train=sides[0],
        eval=sides[1] if len(sides) > 1 else None,
        shown=shown,
        warnings=tuple(_data_warnings(sides, train, evaluation)),
    )


def _evaluation(recipe: Recipe) -> Split | None:
    """The evaluation data, looked at for its counts and its overlap with the training data."""
    return read_split(recipe, "eval") if recipe.data.eval else None


def _training_rows(train: Split) -> list[Row]:
    rows = training_rows(train.samples, texts=train.source.texts)
    if not rows:
        raise RecipeError("holds no text to train on", where="data.train")
    return rows


def _split_findings(split: Split, stats: TokenStats) -> SplitFindings:
    return SplitFindings(
        name=split.name,
        images=len(split.samples),
        captions=sum(len(sample.captions) for sample in split.samples),
        questions=sum(len(sample.questions) for sample in split.samples),
        rows=stats.rows,
        skipped=tuple(LeftOut(one.id, one.reason) for one in split.skipped),
        target_tokens=stats.target_tokens,
        longest=stats.longest,
        longest_id=stats.longest_id,
        cut_rows=stats.cut_rows,
        cut_tokens=stats.cut_tokens,
        sha256=split.sha256,
    )


def _data_warnings(sides: list[SplitFindings], train: Split, evaluation: Split | None) -> list[str]:
    warnings = []
    for side in sides:
        if side.skipped:
            warnings.append(f"{side.name}: {len(side.skipped)} images are unusable and left out")
        if side.cut_rows:
            warnings.append(
                f"{side.name}: {side.cut_rows} rows are cut; raise data.max_text_tokens"
            )
    if evaluation is None:
        return [*warnings, "data.eval is not set: nothing will be evaluated"]
    overlap = shared_images(evaluation.samples, train.samples)
    for ids, what in ((overlap.content, "images"), (overlap.id_only, "ids, of other images,")):
        if ids:
            first = ", ".join(ids[:LISTED])
            warnings.append(
                f"{len(ids)} of {len(evaluation.samples)} {what} of {evaluation.name} are also in "
                f"{train.name}, first {first}"
            )
    return warnings


def _folder_warnings(recipe: Recipe) -> list[str]:
    try:
        check_folder(recipe)
    except CheckpointError as error:
        return [str(error)]
    return []


def _phase(work: TrainingWork, plan: PhasePlan, *, row_tokens: int) -> PhaseFindings:
    rows = work.rows(plan, work.train, training=True)
    batches = math.ceil(len(rows) / plan.train.batch_size)
    steps = math.ceil(plan.train.epochs * math.ceil(batches / plan.train.accumulation))
    targets: tuple[str, ...] = ()
    if work.loaded.handle is not None and plan.tune.decoder == "lora":
        targets = lora_targets(work.loaded.handle)
    return phase_findings(
        work.recipe,
        plan,
        work.counts(plan),
        work.loaded.base.config,
        lora_targets=targets,
        row_tokens=row_tokens,
        steps=plan.train.max_steps if plan.train.max_steps > 0 else steps,
    )
