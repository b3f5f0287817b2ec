"""The JSON file of scores by item."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qvft.evaluation.official.scored import Scored, write


@pytest.mark.parametrize(
    "per_item",
    [
        {},
        {"1": {"a": 0.1, "%s": -0.0}, "\u4e00%d": {"a": 0.0, "%s": 1e-300}},
        {"1": {"a": math.nan}, "2": {"a": 1.0}},
        {"1": {"a": 1.0}, "2": {"b": 1.0}},
        {"1": {"a": 1.0}, "2": {"a": None}},
        {"1": {"a": 1}, "2": {"a": 1.0}},
        {"1": {}, "2": {}},
        {"1": 1.0, "2": {"a": 1.0}},
    ],
)
def test_items_are_written_one_per_line_as_json_does(
    per_item: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path / "out.json", Scored({}, 0, per_item, {}, "", {}))
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    lines = [
        f"    {json.dumps(name, ensure_ascii=False)}: {json.dumps(row)}"
        for name, row in per_item.items()
    ]
    assert text.partition('"per_item": {\n')[2] == ",\n".join(lines) + "\n  }\n}\n"
