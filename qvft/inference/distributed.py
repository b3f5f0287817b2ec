"""Distributed inference: splits work over ranks and gathers the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.errors import ImageError
from qvft.inference.predict import predict_rows
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
    for rank, found in enumerate(_from_all(answers, problem)):
        if rank != state.process_index:
            yield from found


def chunks_shared(
    items: Sequence[Item],
    work: Callable[[Sequence[Sequence[Item]]], Iterable[Found]],
    *,
    size: int,
) -> list[Found]:
    """What `work` finds of each chunk of the items, in order, in every process.

    A process works on every n-th chunk. Chunks are those of one process, so that what is found of
    them is the same to the last bit.

    Args:
        work: finds something of each of a process's chunks, in order. It is sent to the others, so
            that tensors should be on the CPU and no views.
        size: items of a chunk; the last may have fewer.

    Raises:
        ImageError: as `work`, whichever process has met it.
    """
    state = processes()
    world = state.num_processes
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    found: list[Found] = []
    problem: ImageError | None = None
    try:
        found = list(work(chunks[state.process_index :: world]))
    except ImageError as error:
        problem = error  # told to the others, which would wait for what this process finds
    gathered = _from_all(found, problem)
    return [gathered[number % world][number // world] for number in range(len(chunks))]


def _from_all(mine: list[Found], problem: ImageError | None) -> list[list[Found]]:
    """What each process found, by rank; raises what one of them met."""
    gathered = all_gather_object((mine, problem))
    for _, error in gathered:
        if error is not None:
            raise error
    return [found for found, _ in gathered]


def share(image_ids: Sequence[str], *, rank: int, world: int) -> list[int]:
    """Numbers of the rows that a process answers: those of every `world`-th image, in order.

    Args:
        image_ids: of the image that each row is shown.
    """
    order = {name: number for number, name in enumerate(dict.fromkeys(image_ids))}
    return [number for number, name in enumerate(image_ids) if order[name] % world == rank]
