"""Writes the folder of an evaluation: `predictions.jsonl`, `report.json`, `report.html`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from qvft.data.images.decoding import decode as decode_image
from qvft.disk import replaced_folder
from qvft.evaluation.output_folder import free_name
from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow, row_to_json
from qvft.evaluation.scoring import Scores
from qvft.evaluation.task import Task
from qvft.files import write_text
from qvft.json_files import json_text
from qvft.locks import beside
from qvft.log import get_logger, is_main_process
from qvft.models.distributed import processes

logger = get_logger("qvft.eval")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder that replaces `folder` if the block ends without an error; the main process's
    alone. Raises BusyError if another program evaluates there.
    """
    state = processes()
    state.wait_for_everyone()  # all processes have checked the existing folder
    if is_main_process():
        with beside(folder), replaced_folder(folder) as partial:
            yield partial
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
    state.wait_for_everyone()  # all processes see the complete folder


@contextmanager
def kept_on_failure(items: Sequence[PredictionRow], folder: Path) -> Iterator[None]:
    """Keeps predictions next to `folder` if a later step fails."""
    try:
        yield
    except BaseException:
        if is_main_process():
            path = free_name(folder.parent, f"{folder.name}.unscored", ".jsonl")
            with suppress(OSError):
                write_text(path, "".join(json_text(row_to_json(row, {})) + "\n" for row in items))
                logger.error("the %d predictions that were made are kept in %s", len(items), path)
        raise


def write(
    partial: Path, task: Task, report: Report, items: Sequence[PredictionRow], scores: Scores
) -> None:
    """Writes predictions and report into a folder of `replacing`; only the main process does."""
    if not is_main_process():
        return
    write_text(
        partial / "predictions.jsonl",
        "".join(
            json_text(row_to_json(item, values)) + "\n"
            for item, values in zip(items, scores.per_item, strict=True)
        ),
    )
    recipe = task.opened.recipe
    sources = {row.sample.image.name: row.sample.image for row in task.rows}
    write_report(
        partial,
        report,
        items,
        scores.per_item,
        image_for=lambda name: decode_image(sources[name], max_pixels=recipe.data.max_image_pixels),
        grid=recipe.eval.report_images,
    )
