"""Distributed inference: splits work over ranks and gathers the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.errors import ImageError
from qvft.inference.predict import Outcome, predict_rows
from qvft.log import get_logger
from qvft.models.distributed import all_gather_object, processes

logger = get_logger("qvft.eval")

Item = TypeVar("Item")
Found = TypeVar("Found")


def predict_shared(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    images: Sequence[Sample] | None = None,
    **settings: Any,
) -> Iterator[Outcome]:
    """As `predict_rows`, with rows divided among ranks; every rank yields every row once.

    Rows of an image stay on one rank, which encodes it once. A rank yields its own rows as they
    finish, then all-gathers the others'.

    Raises:
        ImageError: an image is unusable, on any rank.
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
    answers: list[Outcome] = []
    problem: ImageError | None = None
    try:
        for outcome in predict_rows(
            model,
            collator,
            [rows[number] for number in mine],
            [shown[number] for number in mine],
            **settings,
        ):
            answers.append(replace(outcome, number=mine[outcome.number]))
            yield answers[-1]
    except ImageError as error:
        problem = error  # sent to the other ranks, which would wait for this one's results
    for rank, found in enumerate(_gathered(answers, problem)):
        if rank != state.process_index:
            yield from found


def chunks_shared(
    items: Sequence[Item],
    work: Callable[[Sequence[Sequence[Item]]], Iterable[Found]],
    *,
    size: int,
) -> list[Found]:
    """Results of `work` for each chunk of the items, in order, on every rank.

    A rank computes every n-th chunk. Chunks do not depend on the number of ranks, so results are
    bit-identical.

    Args:
        work: computes the results of a rank's chunks, in order. They are sent to other ranks, so
            tensors should be on the CPU and not views.
        size: items per chunk; the last may have fewer.

    Raises:
        ImageError: as `work`, on any rank.
    """
    state = processes()
    world = state.num_processes
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    found: list[Found] = []
    problem: ImageError | None = None
    try:
        found = list(work(chunks[state.process_index :: world]))
    except ImageError as error:
        problem = error  # sent to the other ranks, which would wait for this one's results
    gathered = _gathered(found, problem)
    return [gathered[number % world][number // world] for number in range(len(chunks))]


def _gathered(mine: list[Found], problem: ImageError | None) -> list[list[Found]]:
    """All-gathers results by rank; raises the error of any rank."""
    gathered = all_gather_object((mine, problem))
    for _, error in gathered:
        if error is not None:
            raise error
    return [found for found, _ in gathered]


def share(image_ids: Sequence[str], *, rank: int, world: int) -> list[int]:
    """Row numbers of this rank: those of every `world`-th image, in order."""
    order = {name: number for number, name in enumerate(dict.fromkeys(image_ids))}
    return [number for number, name in enumerate(image_ids) if order[name] % world == rank]
