"""Builds the dataset and batch sampler of a phase: token budget, or streamed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from qvft.data.collate import Collator
from qvft.data.prompt import PromptTemplate
from qvft.data.row_tokens import row_tokens
from qvft.data.rows import Row
from qvft.data.stream import Stream
from qvft.log import get_logger
from qvft.recipe.schema import Recipe
from qvft.recipe.train import Train
from qvft.training.batches.augmented_views import ViewDraw
from qvft.training.batches.streamed import StreamedBatches
from qvft.training.batches.token_budget_sampler import TokenBatchSampler

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
    """The token-budget batch sampler of `train.batch_tokens`; None if batch size is in texts.

    Args:
        train: the phase's settings.
        rows: training rows; None if there are none.
        template: the training prompt template.
        shares: whether rows of an image share a prompt prefix in the decoder.
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
    """The draw of a training image's view per epoch; None without augmentation."""
    views = recipe.data.augmentations_per_image
    return ViewDraw(views, recipe.run.seed) if views else None


def streamed_batches(
    stream: Stream, recipe: Recipe, train: Train, collator: Collator, *, views: ViewDraw | None
) -> StreamedBatches:
    """Batch sampler of a phase's stream on this process."""
    source = recipe.data.train
    assert source is not None, "what is streamed is named"
    return StreamedBatches(
        stream,
        batch_size=train.per_device_train_batch_size,
        group_size=train.texts_per_image,
        buffer=source.shuffle_buffer,
        seed=recipe.run.seed,
        rank=int(os.environ.get("RANK", "0")),
        world=int(os.environ.get("WORLD_SIZE", "1")),
        texts=source.texts,
        on_bad=recipe.data.on_bad_image,
        check=collator.decode,
        views=views,
    )
