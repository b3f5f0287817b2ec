"""docs/report.md says what the report's classes say now, and names every key."""

from __future__ import annotations

import re

from qvft.evaluation.comparison import METHOD
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow, row_to_json
from tools.report_reference import PAGE, ROW_KEYS, tables, with_tables


def test_the_file_in_the_repository_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_tables(text), "run `python -m tools.report_reference`"
    assert METHOD in text


def test_every_key_of_the_schema_stands_in_a_table_with_a_description() -> None:
    schema = Report.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = [key for part in parts for key in part["properties"]]
    assert len(keys) > 60  # there are some seventy; an empty reference must not pass
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", tables(), flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(keys)
    assert [name for name, said in rows if said.strip() in ("", "None")] == []


def test_no_part_of_the_report_takes_unknown_keys() -> None:
    schema = Report.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts)


def test_every_key_of_a_prediction_is_named() -> None:
    row = PredictionRow("q", "i", "question", "?", "a", ("a",))
    assert list(row_to_json(row, {})) == list(ROW_KEYS)
