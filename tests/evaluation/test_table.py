"""Scores as a person reads them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from qvft.evaluation.table import comparison_table, figure, headline, score_table

REPORT: dict[str, Any] = {
    "n": 30,
    "data": {"name": "rad-test", "images": 12},
    "model": {"kind": "run"},
    "metrics": {"exact_match": 41.26, "CIDEr": 1.2345, "accuracy": 9.0},
    "intervals": {"exact_match": [30.0, 52.04]},
    "units": {"exact_match": "percent", "CIDEr": "0..10"},
    "baselines": {"most_frequent_answer": {"exact_match": 12.0}, "blind": {"CIDEr": 0.5}},
}


def cells(table: Table) -> list[list[str]]:
    """The table by rows, its heading first."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_scores_stand_beside_their_intervals_and_baselines() -> None:
    assert cells(score_table(REPORT)) == [
        ["metric", "run", "95 % interval", "most frequent answer", "blind"],
        ["exact_match", "41.3 %", "30.0 % to 52.0 %", "12.0 %", "–"],
        ["CIDEr", "1.234", "", "–", "0.500"],
    ]


def test_the_title_says_how_much_was_scored() -> None:
    assert score_table(REPORT).title == "rad-test: 30 texts of 12 images"


def test_the_table_prints() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(score_table(REPORT))
    assert "41.3 %" in console.file.getvalue()  # type: ignore[attr-defined]


def test_reports_stand_side_by_side_with_the_last_blind_figure() -> None:
    base = {**REPORT, "metrics": {"exact_match": 3.0}, "baselines": {"blind": {"exact_match": 1}}}
    tuned = {**REPORT, "baselines": {"blind": {"exact_match": 11.0, "CIDEr": 0.5}}}
    assert cells(comparison_table({"base": base, "tuned": tuned})) == [
        ["metric", "base", "tuned", "blind"],
        ["exact_match", "3.0 %", "41.3 %", "11.0 %"],
        ["CIDEr", "–", "1.234", "0.500"],
    ]


def test_without_a_blind_figure_there_is_no_such_column() -> None:
    table = comparison_table({"a": {**REPORT, "baselines": {}}})
    assert cells(table)[0] == ["metric", "a"]


def test_the_blind_figure_keeps_its_unit_where_the_last_report_lacks_the_metric() -> None:
    asked = {**REPORT, "baselines": {"blind": {"exact_match": 11.0}}}
    captioned = {**REPORT, "metrics": {"CIDEr": 1.0}, "units": {"CIDEr": "0..10"}, "baselines": {}}
    table = cells(comparison_table({"asked": asked, "captioned": captioned}))
    assert table[1] == ["exact_match", "41.3 %", "–", "11.0 %"]


def test_closed_and_open_scores_stand_instead_of_their_mixture() -> None:
    metrics = {"exact_match": 1.0, "open_exact_match": 2.0, "closed_accuracy": 3.0}
    assert headline(metrics) == ["closed_accuracy", "open_exact_match"]


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [(41.25, "percent", "41.2 %"), (0.12345, "0..1", "0.123"), (None, "percent", "–")],
)
def test_a_figure_is_written_in_its_unit(value: float | None, unit: str, written: str) -> None:
    assert figure(value, unit) == written
