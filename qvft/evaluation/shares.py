"""Rows asked by several processes: each answers its share, and each ends up with all answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.errors import ImageError
from qvft.evaluation.predict import predict_rows
from qvft.log import get_logger
from qvft.models.processes import from_all, processes

logger = get_logger("qvft.eval")


def predict_shared(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    images: Sequence[Sample] | None = None,
    **settings: Any,
) -> Iterator[tuple[int, str]]:
    """As `predict_rows`: every row once, in every process; under one process it is that.

    Rows of an image stay in one process, since it is encoded once for them. A process yields its
    own rows as they finish, then waits for the others'.

    Raises:
        ImageError: an image is unusable, whichever process has met it.
    """
    state = processes()
    if state.num_processes == 1:
        yield from predict_rows(model, collator, rows, images, **settings)
        return
    logger.info("%d rows are shared by %d processes", len(rows), state.num_processes)
    shown = images if images is not None else [row.sample for row in rows]
    mine = share(
        [sample.id for sample in shown], rank=state.process_index, world=state.num_processes
    )
    answers: list[tuple[int, str]] = []
    problem: ImageError | None = None
    try:
        for place, text in predict_rows(
            model,
            collator,
            [rows[number] for number in mine],
            [shown[number] for number in mine],
            **settings,
        ):
            answers.append((mine[place], text))
            yield answers[-1]
    except ImageError as error:
        problem = error  # told to the others, which would wait for this process's answers
    gathered = from_all((answers, problem))
    for _, error in gathered:
        if error is not None:
            raise error
    for rank, (found, _) in enumerate(gathered):
        if rank != state.process_index:
            yield from found


def share(image_ids: Sequence[str], *, rank: int, world: int) -> list[int]:
    """Numbers of the rows that a process answers: those of every `world`-th image, in order.

    Args:
        image_ids: of the image that each row is shown.
    """
    order = {name: number for number, name in enumerate(dict.fromkeys(image_ids))}
    return [number for number, name in enumerate(image_ids) if order[name] % world == rank]
