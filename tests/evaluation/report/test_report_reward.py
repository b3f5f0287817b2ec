"""The section of a report on phases that learn from rewards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.preference_and_reward import reward_curve
from qvft.evaluation.report.report import Report


def logged(*held_out: float) -> list[dict]:
    """Lines of metrics.jsonl: a language phase, then one whose reward rises."""
    lines: list[dict] = [{"phase": "first", "step": 1, "loss": 2.0}]
    for step, value in enumerate(held_out, start=1):
        lines.append(
            {
                "phase": "reward",
                "step": step,
                "loss": 0.0,
                "reward": 0.5 * step,
                "completions/bad_endings": 0.25,
                "completions/distinct_2": float("nan"),
            }
        )
        lines.append({"phase": "reward", "step": step, "eval_held_out": value})
    return lines


@pytest.mark.parametrize(("held_out", "fell"), [((0.5, 0.75), False), ((0.75, 0.5), True)])
def test_the_page_says_where_a_rising_reward_lowered_the_held_out_metric(
    tmp_path: Path, held_out: tuple[float, ...], fell: bool
) -> None:
    points = reward_curve(logged(*held_out))
    assert {point.phase for point in points} == {"reward"}
    assert len(points) == 4 and points[0].distinct_2 is None
    report = Report(title="t", n=0, metrics={}, reward_curve=points)
    write_report(tmp_path, report, [], [])
    page = (tmp_path / "report.html").read_text()
    section = page[page.index('id="reward"') :]
    assert ("the reward was exploited" in section) == fell
    assert "samples with a bad ending" in section and "distinct bigrams of" not in section
    content = json.loads((tmp_path / "report.json").read_text())
    assert Report(**content).reward_curve == points


def test_a_run_without_such_a_phase_has_no_such_section(tmp_path: Path) -> None:
    write_report(tmp_path, Report(title="t", n=0, metrics={}), [], [])
    assert 'id="reward"' not in (tmp_path / "report.html").read_text()
