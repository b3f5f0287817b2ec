"""docs/report.md says what the report's classes say now, and names every key."""

from __future__ import annotations

import re
from pathlib import Path

from qvft.evaluation.report.reference import (
    REFERENCE_FILE,
    ROW_KEYS,
    reference_text,
    write_reference,
)
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow, row_to_json

PROJECT = Path(__file__).resolve().parents[3]


def test_the_file_in_the_repository_is_current() -> None:
    text = (PROJECT / REFERENCE_FILE).read_text(encoding="utf-8")
    assert text == reference_text(), "run `python -m qvft.evaluation.report.reference`"


def test_every_key_of_the_schema_stands_in_a_table_with_a_description() -> None:
    schema = Report.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = [key for part in parts for key in part["properties"]]
    assert len(keys) > 60  # there are some seventy; an empty reference must not pass
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", reference_text(), flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(keys)
    assert [name for name, said in rows if said.strip() in ("", "None")] == []


def test_no_part_of_the_report_takes_unknown_keys() -> None:
    schema = Report.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts)


def test_every_key_of_a_prediction_is_named() -> None:
    row = PredictionRow("q", "i", "question", "?", "a", ("a",))
    assert list(row_to_json(row, {})) == list(ROW_KEYS)


def test_it_is_written_below_the_root(tmp_path: Path) -> None:
    assert write_reference(tmp_path).read_text(encoding="utf-8") == reference_text()
