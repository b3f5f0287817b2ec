"""Reads a stored evaluation and compares its settings with those requested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qvft.errors import DataError
from qvft.evaluation.evaluation_facts import DataFacts, DecodeFacts, ModelFacts, setting_differences
from qvft.evaluation.pairing import differing_parts
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow, row_of_json
from qvft.json_files import read_json, read_jsonl

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


def facts_of(
    model: ModelFacts, data: DataFacts, decode: DecodeFacts, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Facts that determine an evaluation's texts, as JSON values."""
    parts = {"model": model, "data": data, "decode": decode}
    content = {name: part.model_dump(mode="json") for name, part in parts.items()}
    return stored_facts({**content, "versions": versions})


def stored_facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of `facts_of` from a `report.json`."""
    found = {
        part: {k: v for k, v in (content.get(part) or {}).items() if k not in ignored}
        for part, ignored in _IGNORED.items()
    }
    return {**found, "versions": dict(content.get("versions") or {})}


def mismatch(
    stored: StoredEvaluation, facts: Mapping[str, Any], rows: Sequence[PredictionRow]
) -> str | None:
    """Why an evaluation with `facts` would have other texts; None if it would not.

    Args:
        facts: from `facts_of`; null values are unknown and count as a mismatch.
        rows: rows of the task; predictions are not used.
    """
    if facts["data"]["images_sha256"] is None:
        return "its images have no files whose content could be compared"
    differing = setting_differences(facts, stored_facts(stored.content))
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        return "other " + ", ".join(item.setting for item in differing[:3]) + more
    same = len(rows) == len(stored.rows) and all(
        row.id == found.id and row.meta == found.meta and not differing_parts(row, found)
        for row, found in zip(rows, stored.rows, strict=True)
    )
    return None if same else "other items"
