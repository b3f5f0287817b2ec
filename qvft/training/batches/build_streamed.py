"""From a stream of training data to the batches of this process."""

from __future__ import annotations

import os

from qvft.data.collate import Collator
from qvft.data.stream import Stream
from qvft.recipe.schema import Recipe
from qvft.recipe.train import Train
from qvft.training.batches.streamed import StreamedBatches
from qvft.training.batches.views import ViewDraw


def streamed_batches(
    stream: Stream, recipe: Recipe, train: Train, collator: Collator, *, views: ViewDraw | None
) -> StreamedBatches:
    """This process's batches of a phase."""
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
