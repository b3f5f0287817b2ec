"""`python -m qvft.evaluation.summary`: reports side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.evaluation.summary import main, read_reports


def write(folder: Path, exact_match: float) -> Path:
    """A folder with the parts of a report that the table reads."""
    folder.mkdir(parents=True)
    report = {
        "metrics": {"exact_match": exact_match},
        "units": {"exact_match": "percent"},
        "baselines": {},
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_named_reports_are_printed_side_by_side(tmp_path: Path, capsys) -> None:
    base, tuned = write(tmp_path / "a", 2.5), write(tmp_path / "b", 91.0)
    assert main([f"base={base}", f"tuned={tuned}"]) == 0
    printed = capsys.readouterr().out
    assert [name for name in ("base", "tuned", "2.5 %", "91.0 %") if name not in printed] == []


def test_a_report_may_lie_one_folder_below(tmp_path: Path) -> None:
    write(tmp_path / "eval" / "digits-test", 7.0)
    reports = read_reports([f"tuned={tmp_path / 'eval'}"])
    assert reports["tuned"]["metrics"] == {"exact_match": 7.0}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    message = capsys.readouterr().err
    assert message.count("qvft: ") == 1
    return message


def test_two_reports_below_a_folder_are_refused(tmp_path: Path, capsys) -> None:
    write(tmp_path / "eval" / "one", 1.0)
    write(tmp_path / "eval" / "two", 2.0)
    message = refused(capsys, f"tuned={tmp_path / 'eval'}")
    assert "2 reports" in message and "expected exactly one" in message


def test_a_folder_without_a_report_is_refused(tmp_path: Path, capsys) -> None:
    assert "0 reports" in refused(capsys, f"tuned={tmp_path}")


def test_a_folder_without_a_name_is_refused(tmp_path: Path, capsys) -> None:
    assert "expected NAME=FOLDER" in refused(capsys, str(tmp_path))


def test_a_name_given_twice_is_refused(tmp_path: Path, capsys) -> None:
    first, second = write(tmp_path / "a", 1.0), write(tmp_path / "b", 2.0)
    assert "each name once" in refused(capsys, f"x={first}", f"x={second}")
