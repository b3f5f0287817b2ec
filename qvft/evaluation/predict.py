"""Rows in, texts out: batched generation over images and questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.progress import Progress
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.evaluation.decode import PromptBatches, generate_texts
from qvft.log import stderr


def predict_rows(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    images: Sequence[Sample] | None = None,
    *,
    generation: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    workers: int,
    label: str = "predict",
) -> Iterator[tuple[int, str]]:
    """Pairs (row number, text) as batches finish, in batch order.

    Args:
        images: the sample whose image each row is shown; None: its own.
        generation: `GenerationConfig` fields by kind, `caption` and `question`.
        batch_size: rows decoded together.
        workers: processes that decode images.
        label: of the progress bar.
    """
    shown = images if images is not None else [row.sample for row in rows]
    batches = PromptBatches(rows, shown, collator, batch_size=batch_size, workers=workers)
    with Progress(console=stderr, transient=True) as progress:
        task = progress.add_task(label, total=len(rows))
        for batch in batches:
            texts = generate_texts(model, collator, batch, generation[batch["kind"]])
            yield from zip(batch["rows"], texts, strict=True)
            progress.advance(task, len(texts))
