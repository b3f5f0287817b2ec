"""From a phase's settings to its batches by tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence

from qvft.data.prompt import PromptTemplate
from qvft.data.row_tokens import row_tokens
from qvft.data.rows import Row
from qvft.log import get_logger
from qvft.recipe.schema import Recipe
from qvft.recipe.train import Train
from qvft.training.batches.token_budget_sampler import TokenBatchSampler
from qvft.training.batches.views import ViewDraw

logger = get_logger("qvft.train")


def token_batches(
    train: Train,
    rows: Sequence[Row],
    template: PromptTemplate,
    *,
    shares: bool,
    seed: int,
    phase: str,
) -> TokenBatchSampler | None:
    """What `train.batch_tokens` asks for; None where batches are counted in texts.

    Args:
        train: the settings that hold in the phase.
        rows: what it trains on; without any there are no batches.
        template: as training has it.
        shares: rows of an image begin alike for the decoder.
        seed: of the order.
        phase: its name, for the log.

    Raises:
        RecipeError: as `TokenBatchSampler`.
    """
    if train.batch_tokens is None or not rows:
        return None
    batches = TokenBatchSampler(
        [row.sample.id for row in rows],
        row_tokens(rows, template, shares=shares),
        budget=train.batch_tokens,
        group_size=train.texts_per_image,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
        accumulation=train.gradient_accumulation_steps,
        seed=seed,
    )
    logger.info(
        "phase %s: an epoch of %d texts is %d batches of %.1f texts and %.0f tokens (at most %d)",
        phase,
        len(rows),
        len(batches),
        len(rows) / len(batches),
        batches.total_tokens / len(batches),
        train.batch_tokens,
    )
    return batches


def view_draw(recipe: Recipe) -> ViewDraw | None:
    """What chooses a training image's view in each epoch; None where images have no views."""
    return (
        ViewDraw(recipe.data.augmentations_per_image, recipe.run.seed)
        if recipe.data.augmentations_per_image
        else None
    )
