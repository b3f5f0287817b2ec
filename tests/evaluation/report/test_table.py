"""Scores as a person reads them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from qvft.evaluation.report.table import (
    column_names,
    difference_table,
    figure,
    headline,
    score_table,
    signed,
)

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


def test_closed_and_open_scores_stand_instead_of_their_mixture() -> None:
    metrics = {"exact_match": 1.0, "open_exact_match": 2.0, "closed_accuracy": 3.0}
    assert headline(metrics) == ["closed_accuracy", "open_exact_match"]


def test_yes_or_no_anywhere_stands_beside_the_strict_closed_accuracy() -> None:
    names = ["closed_undecided", "closed_unparseable", "closed_accuracy_anywhere"]
    shown = headline(dict.fromkeys([*names, "closed_accuracy"], 1.0))
    assert shown == ["closed_accuracy", "closed_accuracy_anywhere", "closed_unparseable"]


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [(41.25, "percent", "41.2 %"), (0.12345, "0..1", "0.123"), (None, "percent", "–")],
)
def test_a_figure_is_written_in_its_unit(value: float | None, unit: str, written: str) -> None:
    assert figure(value, unit) == written


def against(**fields: Any) -> dict[str, Any]:
    """A report with a comparison of one metric that got better and one that says nothing."""
    metric = {"n": 8, "changed": 2, "lower_is_better": False}
    content = {
        "name": "runs/b/eval/rad-test",
        "n": 8,
        "only_in_a": 0,
        "only_in_b": 0,
        "settings": [],
        "units": {"exact_match": "percent", "CIDEr": "0..10"},
        "counts": {
            "changed": 3, "better": 2, "worse": 1, "same": 0,
            "wrong_to_right": 2, "right_to_wrong": 1,
        },
        "metrics": {
            "exact_match": {
                **metric, "a": 50.0, "b": 37.5, "difference": 12.5, "interval": [2.5, 25.0],
                "excludes_zero": True,
            },
            "CIDEr": {
                **metric, "a": 1.0, "b": 1.25, "difference": -0.25, "interval": None,
                "excludes_zero": None,
            },
        },
    }  # fmt: skip
    return {**REPORT, "model": {"kind": "run", "name": "runs/a"}, "against": {**content, **fields}}


def test_differences_stand_with_both_figures_and_their_interval() -> None:
    assert cells(difference_table(against())) == [
        ["metric", "a", "b", "difference", "95 % interval", "without 0"],
        ["exact_match", "50.0 %", "37.5 %", "+12.5 points", "+2.5 to +25.0 points", "yes"],
        ["CIDEr", "1.000", "1.250", "\u22120.250", "", ""],
    ]


def test_the_title_says_the_direction_and_the_caption_what_changed() -> None:
    table = difference_table(against(only_in_a=2, only_in_b=1))
    assert table.title == "a minus b, on the same 8 texts (3 left out)"
    assert "2 score higher, 1 lower; questions 2 wrong to right, 1 right" in str(table.caption)


def test_settings_that_differ_are_said() -> None:
    settings = [{"setting": "decode.batch_size", "a": 8, "b": 16}]
    caption = str(difference_table(against(settings=settings)).caption)
    assert caption.endswith("They were not asked alike: decode.batch_size: 8 and 16.")


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        ("runs/a", "runs/b/", ("a", "b")),
        ("x/run", "y/run", ("x/run", "y/run")),
        ("runs/a", "runs/a/eval-base/rad-test", ("a", "a/eval-base")),
    ],
)
def test_columns_are_named_so_that_they_can_be_told_apart(a: str, b: str, named: tuple) -> None:
    assert column_names(a, b) == named


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [(1.25, "percent", "+1.2 points"), (-0.25, "0..1", "\u22120.250"), (-0.00001, "0..1", "0.000")],
)
def test_a_difference_has_its_sign(value: float, unit: str, written: str) -> None:
    assert signed(value, unit) == written
