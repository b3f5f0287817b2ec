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
_BESIDE_THE_POINT = {"name", "kind", "device"}
_OF_A_PLACE = {"path"}


@dataclass(frozen=True)
class StoredEvaluation:
    """A stored evaluation: its rows, and the content of its `report.json`."""

    folder: Path
    rows: list[PredictionRow]
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


def read_standing(folder: Path) -> StoredEvaluation:
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
    rows = [row_of_json(row, where=f"{path}:{number}") for number, row in read_jsonl(path)]
    if len(rows) != content["n"]:
        raise DataError(
            f"{len(rows)} predictions", where=str(path), expected=f"{content['n']}, as reported"
        )
    return StoredEvaluation(folder, rows, content)


def facts_of(
    model: ModelFacts, data: DataFacts, decode: DecodeFacts, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Facts that determine an evaluation's texts, as JSON values."""
    return {
        "model": model.model_dump(mode="json", exclude=_BESIDE_THE_POINT),
        "data": data.model_dump(mode="json", exclude=_OF_A_PLACE),
        "decode": decode.model_dump(mode="json"),
        "versions": dict(versions),
    }


def facts_read(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same facts from a `report.json`."""
    found = {part: dict(content.get(part) or {}) for part in ("model", "data", "decode")}
    found["model"] = {k: v for k, v in found["model"].items() if k not in _BESIDE_THE_POINT}
    found["data"] = {k: v for k, v in found["data"].items() if k not in _OF_A_PLACE}
    return {**found, "versions": dict(content.get("versions") or {})}


def mismatch(
    standing: StoredEvaluation, facts: Mapping[str, Any], rows: Sequence[PredictionRow]
) -> str | None:
    """Why an evaluation with `facts` would have other texts; None if it would not.

    Args:
        facts: from `facts_of`; null values are unknown and count as a mismatch.
        rows: rows of the task; predictions are not used.
    """
    if facts["data"]["images_sha256"] is None:
        return "its images have no files whose content could be compared"
    differing = setting_differences(facts, facts_read(standing.content))
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        return "other " + ", ".join(item.setting for item in differing[:3]) + more
    same = len(rows) == len(standing.rows) and all(
        row.id == found.id and row.meta == found.meta and not differing_parts(row, found)
        for row, found in zip(rows, standing.rows, strict=True)
    )
    return None if same else "other items"
