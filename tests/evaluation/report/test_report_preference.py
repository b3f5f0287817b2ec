"""The section of a report on phases that learn from pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.preference_and_reward import preference_curve, preference_section
from qvft.evaluation.report.report import Report


def logged(*rewards: float) -> list[dict]:
    """Lines of metrics.jsonl: a language phase, then one that learns from pairs."""
    lines = [{"phase": "first", "step": 1, "loss": 2.0}]
    for step, reward in enumerate(rewards, start=1):
        lines.append(
            {
                "phase": "pairs",
                "step": step,
                "loss": 0.6,
                "rewards/accuracies": step / len(rewards),
                "rewards/margins": 0.5 * step,
                "rewards/chosen": reward,
                "logps/chosen": -5.0 + 10 * reward,
                "logps/rejected": -30.0 - step,
            }
        )
    lines.append({"phase": "pairs", "step": len(rewards), "eval_rewards/accuracies": 0.75})
    return lines


def test_points_are_of_the_phase_with_pairs_alone() -> None:
    points = preference_curve(logged(0.1, 0.2))
    assert [(point.phase, point.step) for point in points] == [("pairs", n) for n in (1, 2, 2)]
    assert (points[1].accuracy, points[1].margin, points[1].logps_chosen) == (1.0, 1.0, -3.0)
    assert (points[2].accuracy, points[2].eval_accuracy) == (None, 0.75)


def test_a_value_that_is_not_finite_is_left_out() -> None:
    (point,) = preference_curve([{"phase": "p", "step": 1, "rewards/margins": float("nan")}])
    assert point.margin is None


@pytest.mark.parametrize(("rewards", "fell"), [((0.1, 0.2), False), ((0.1, -0.3), True)])
def test_the_page_has_first_and_last_values_and_charts(
    tmp_path: Path, rewards: tuple[float, ...], fell: bool
) -> None:
    points = preference_curve(logged(*rewards))
    report = Report(title="t", n=0, metrics={}, preference_curve=points)
    write_report(tmp_path, report, [], [])
    page = (tmp_path / "report.html").read_text()
    section = page[page.index('id="preference"') :]
    assert ("less likely than when" in section) == fell
    assert section.count('<svg class="chart"') == 2
    assert "rejected -32" in section and ">0.75<" in section
    content = json.loads((tmp_path / "report.json").read_text())
    assert Report(**content).preference_curve == points


def test_a_report_without_pairs_has_no_section(tmp_path: Path) -> None:
    assert preference_section([], []) is None
    write_report(tmp_path, Report(title="t", n=0, metrics={}), [], [])
    assert 'id="preference"' not in (tmp_path / "report.html").read_text()
