"""A run folder opened from Python, and the report that it gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import qvft
from qvft.errors import CheckpointError
from qvft.eval import main as evaluate
from qvft.evaluation.report.report import Report

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> qvft.Run:
    """A copy of `tiny_run`, opened again."""
    return qvft.Run(shutil.copytree(tiny_run, tmp_path / "run"))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        qvft.Run(tmp_path)


def test_metrics_are_the_rows_of_the_file(run: qvft.Run) -> None:
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert run.metrics == [json.loads(line) for line in lines]


def test_an_evaluation_is_that_of_the_program(run: qvft.Run, tmp_path: Path) -> None:
    report = run.evaluate()
    assert isinstance(report, Report)
    there = json.loads((run.folder / "eval" / "shapes-test" / "report.json").read_text())
    assert there["metrics"] == report.metrics
    assert evaluate([str(run.folder), f"--out={tmp_path / 'out'}"]) == 0
    program = json.loads((tmp_path / "out" / "report.json").read_text())
    assert program["metrics"] == report.metrics
    assert program["data"]["sha256"] == report.data.sha256


def test_rows_in_memory_are_evaluated_as_their_file_is(run: qvft.Run, rows: Rows) -> None:
    overrides = {"eval.blind": False}
    named, given = run.evaluate(**overrides), run.evaluate(rows["test"], **overrides)
    assert given.metrics == named.metrics
    assert given.data.sha256 == named.data.sha256
    assert (given.data.format, given.data.path) == ("memory", None)


def test_a_report_shows_its_scores_in_a_notebook(run: qvft.Run) -> None:
    report = run.evaluate(**{"eval.blind": False})
    page = report.model_copy(update={"warnings": ["<script>"]})._repr_html_()
    assert page.count("<tr>") > 1 and report.title in page
    assert "<script>" not in page


def test_a_run_is_merged_as_the_program_merges_it(run: qvft.Run, tmp_path: Path) -> None:
    folder = run.merge(tmp_path / "merged", dtype="float32")
    assert folder == tmp_path / "merged" and (folder / "merge.json").is_file()
    with pytest.raises(qvft.errors.UserError):
        run.merge(folder)
