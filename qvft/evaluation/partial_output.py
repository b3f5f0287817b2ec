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
    """Context manager: a new folder that replaces `folder` if the block ends without an error.

    Only the main process's folder is kept.

    Raises:
        BusyError: another process evaluates there.
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
def kept_whatever_follows(items: Sequence[PredictionRow], folder: Path) -> Iterator[None]:
    """Context manager: keeps predictions next to `folder` if a later step fails."""
    try:
        yield
    except BaseException:
        if is_main_process():
            path = free_name(folder.with_name(f"{folder.name}.unscored.jsonl"))
            with suppress(OSError):
                write_text(path, "".join(json_text(row_to_json(row, {})) + "\n" for row in items))
                logger.error("the %d predictions that were made are kept in %s", len(items), path)
        raise
