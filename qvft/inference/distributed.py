"""Distributed inference: splits work over ranks and gathers the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
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
) -> list[Outcome]:
    """The outcome of each row, on every rank; arguments as `predict_rows`.

    Rows are divided among ranks; those of an image stay on one, which encodes it once.

    Raises:
        ImageError: an image is unusable, on any rank.
    """
    rank, world = processes().process_index, processes().num_processes
    if world > 1:
        logger.info("%d rows are shared by %d processes", len(rows), world)
    shown = images if images is not None else [row.sample for row in rows]
    mine = share([sample.id for sample in shown], rank=rank, world=world)
    own_rows, own_images = [rows[number] for number in mine], [shown[number] for number in mine]
    found = predict_rows(model, collator, own_rows, own_images, **settings)
    numbered = (replace(outcome, number=mine[outcome.number]) for outcome in found)
    return sorted(chain(*_gathered(numbered)), key=lambda outcome: outcome.number)


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
    rank, world = processes().process_index, processes().num_processes
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    gathered = _gathered(work(chunks[rank::world]))
    return [gathered[number % world][number // world] for number in range(len(chunks))]


def _gathered(mine: Iterable[Found]) -> list[list[Found]]:
    """All-gathers results by rank; raises the error of any rank."""
    found: list[Found] = []
    problem: ImageError | None = None
    try:
        found = list(mine)
    except ImageError as error:
        problem = error  # sent to the other ranks, which would wait for this one's results
    gathered = all_gather_object((found, problem))
    for _, failure in gathered:
        if failure is not None:
            raise failure
    return [one for one, _ in gathered]


def share(image_ids: Sequence[str], *, rank: int, world: int) -> list[int]:
    """Row numbers of this rank: those of every `world`-th image, in order."""
    order = {name: number for number, name in enumerate(dict.fromkeys(image_ids))}
    return [number for number, name in enumerate(image_ids) if order[name] % world == rank]
