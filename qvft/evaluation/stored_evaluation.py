"""Reads a stored evaluation: `predictions.jsonl` and `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qvft.errors import DataError
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow, row_of_json
from qvft.json_files import read_json, read_jsonl
from qvft.log import get_logger

logger = get_logger("qvft.eval")

REPORT_FILES = {"predictions.jsonl", "report.json", "report.html"}

# Facts that may differ for the same evaluation: the model's name, the machine, paths of the data.
_IGNORED = {"model": {"name", "kind", "device"}, "data": {"path"}, "decode": set[str]()}


@dataclass(frozen=True)
class StoredEvaluation:
    """A stored evaluation: its rows, their scores, and the content of its `report.json`."""

    folder: Path
    rows: list[PredictionRow]
    scores: list[dict[str, float | str]]
    content: Mapping[str, Any]

    def report(self) -> Report | None:
        """The typed report; None if another version of qvft wrote other fields."""
        try:
            return Report.model_validate(self.content)
        except ValidationError:
            return None


def readable_evaluation(folder: Path) -> StoredEvaluation | None:
    """The evaluation in a folder; None if there is none, or it is damaged, which is logged."""
    if not holds_evaluation(folder):
        return None
    try:
        return read_evaluation(folder)
    except DataError as error:
        logger.warning("%s", error)
        return None


def holds_evaluation(folder: Path) -> bool:
    """Whether both files of an evaluation exist."""
    return all((folder / name).is_file() for name in ("predictions.jsonl", "report.json"))


def read_evaluation(folder: Path) -> StoredEvaluation:
    """Reads the evaluation in a folder.

    Raises:
        DataError: a file is missing or damaged.
    """
    content = read_json(folder / "report.json")
    if not isinstance(content, dict) or not {"n", "metrics"} <= content.keys():
        raise DataError(
            "is no report", where=str(folder / "report.json"), expected="what qvft.eval writes"
        )
    path = folder / "predictions.jsonl"
    lines = list(read_jsonl(path))
    rows = [row_of_json(row, where=f"{path}:{number}") for number, row in lines]
    if len(rows) != content["n"]:
        raise DataError(
            f"{len(rows)} predictions", where=str(path), expected=f"{content['n']}, as reported"
        )
    return StoredEvaluation(folder, rows, [row.get("scores") or {} for _, row in lines], content)


def stored_facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in a `report.json` that determine the texts of its evaluation."""
    found = {
        part: {k: v for k, v in (content.get(part) or {}).items() if k not in ignored}
        for part, ignored in _IGNORED.items()
    }
    return {**found, "versions": dict(content.get("versions") or {})}
