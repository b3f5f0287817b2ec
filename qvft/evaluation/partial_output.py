"""Writes an evaluation's folder atomically; predictions survive an interruption."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from qvft.disk import replaced_folder
from qvft.evaluation.output_folder import free_name
from qvft.evaluation.rows import PredictionRow, row_to_json
from qvft.files import write_text
from qvft.json_files import json_text
from qvft.locks import beside
from qvft.log import get_logger, is_main_process
from qvft.models.distributed import processes

logger = get_logger("qvft.eval")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `folder` if the block ends without an error.

    Under several processes that is the main one's; the others' goes as it came.

    Raises:
        BusyError: another process evaluates there.
    """
    state = processes()
    state.wait_for_everyone()  # all have looked at what stands there
    if is_main_process():
        with beside(folder), replaced_folder(folder) as partial:
            yield partial
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
    state.wait_for_everyone()  # all find it whole


@contextmanager
def kept_whatever_follows(items: Sequence[PredictionRow], folder: Path) -> Iterator[None]:
    """Writes predictions beside `folder` if what follows fails: they took the time."""
    try:
        yield
    except BaseException:
        if is_main_process():
            path = free_name(folder.with_name(f"{folder.name}.unscored.jsonl"))
            with suppress(OSError):
                write_text(path, "".join(json_text(row_to_json(row, {})) + "\n" for row in items))
                logger.error("the %d predictions that were made are kept in %s", len(items), path)
        raise
