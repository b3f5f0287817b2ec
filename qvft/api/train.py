"""Trains from a recipe: shared by `qvft.train` and `qvft.fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qvft.log import get_logger, is_main_process, stdout
from qvft.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import TrainerCallback

logger = get_logger("qvft.train")


def train(
    recipe: Recipe, *, named: str | None = None, callbacks: Sequence[TrainerCallback] = ()
) -> Path:
    """Trains a recipe, and returns the run folder; raises as `qvft.fit`.

    Args:
        named: name of the recipe in messages; None: its own.
    """
    from qvft.checking.before_torch import require_models, require_settings, training_texts
    from qvft.files import require_space, require_writable
    from qvft.recipe.load import idle_keys
    from qvft.recipe.unused_keys import named_in_file
    from qvft.setup.start_run import start_run
    from qvft.training.run_folder import (
        check_folder,
        claimed_folder,
        has_progress,
        is_finished,
        rates_from_lock,
        resolve_revision,
        revision_from_lock,
    )

    for line in named_in_file(recipe, idle_keys(recipe)):
        logger.warning("%s: %s", named or recipe.name, line)
    recipe = rates_from_lock(recipe)
    require_settings(recipe)
    require_models(recipe)
    folder = check_folder(revision_from_lock(recipe))
    if has_progress(folder):
        from qvft.training.recorded_data import require_same_data

        require_same_data(recipe, folder)
    if is_finished(folder):
        logger.info("%s: training has finished already", folder)
        return folder
    start = start_run(recipe)
    if start is not None and has_progress(folder):
        from qvft.training.recorded_data import require_same_start

        require_same_start(start, folder)
    require_writable(folder, folder=True)
    require_writable(folder / "metrics.jsonl")
    texts = training_texts(recipe)

    # All checks that need no torch are done.
    from qvft.adapters.freeze import component_table
    from qvft.evaluation.report.progress_page import progress_page
    from qvft.evaluation.rewards import reward_functions
    from qvft.evaluation.scoring import text_scores
    from qvft.setup.mixing import share_text
    from qvft.training.phases import run_phases
    from qvft.training.prepare_training import prepare_training
    from qvft.training.run_warnings import query_warnings, run_warnings

    recipe = resolve_revision(recipe)
    work = prepare_training(
        recipe, texts=texts, callbacks=callbacks, rewards=reward_functions, scores=text_scores
    )
    require_space(folder, work.needed_bytes())
    sources = [
        f"phase {plan.phase.name}, source {share_text(one)}"
        for plan in work.plans
        for one in work.source_shares(plan)
    ]
    for line in sources:
        logger.info("%s", line)
    with claimed_folder(work.recipe, sources):
        if is_finished(folder):  # finished by another process meanwhile
            return folder
        if is_main_process():
            for warning in run_warnings(work):
                logger.warning("%s", warning)
            for plan in work.plans:
                stdout.print(component_table(work.counts(plan), title=f"phase {plan.phase.name}"))
        work.cache_features()
        with progress_page(folder) as page:
            run_phases(folder, work, page=page)
        for sentence in query_warnings(work):
            logger.warning(sentence)
    logger.info("adapter written to %s", folder / "adapter")
    return folder
