"""Phases in the report: how a row words one, and where the loss chart marks its beginning."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from qvft.evaluation.report.loss_chart import WIDTH, loss_chart
from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.phases import PhaseComponent, PhaseFacts, phase_lines
from qvft.evaluation.report.report import LossPoint, Report

CLIP = PhaseComponent(component="vision", title="CLIP encoder", weights=152_060_000, trained=0)
DECODER = PhaseComponent(
    component="decoder", title="GPT-Neo decoder", weights=355_800_000, trained=240_360_000
)
QFORMER = PhaseComponent(component="qformer", title="qformer", weights=9_500, trained=9_500)


def phase(**changes: Any) -> PhaseFacts:
    fields = {
        "name": "half_frozen", "objectives": {"lm": 1.0}, "components": [CLIP, DECODER, QFORMER],
        "decoder_blocks": 24, "decoder_blocks_trained": 15, "decoder_frozen": 0.5,
        "learning_rates": {"decoder": 2e-5, "qformer": 2e-5}, "epochs": 3.0, "max_steps": None,
        "batch_size": 8, "accumulation": 4, "steps": 7500, "loss": 2.0815,
    }  # fmt: skip
    return PhaseFacts(**{**fields, **changes})


def line(**changes: Any) -> dict[str, Any]:
    return phase_lines([phase(**changes)])[0]


def plain(texts: list[str]) -> list[str]:
    return [re.sub(r"\s", " ", text) for text in texts]


def test_what_is_trained_and_frozen_is_said_in_weights_and_blocks() -> None:
    found = line()
    assert plain(found["trained"]) == [
        "GPT-Neo decoder 240.36 M of 355.80 M, 15 of 24 blocks",
        "Q-Former 9 500",
        "47.3 % of all weights",  # 240.3695 of 507.8695
    ]
    assert plain(found["frozen"]) == ["CLIP encoder 152.06 M"]


def test_one_learning_rate_for_all_goes_without_names_and_several_with() -> None:
    assert line()["rates"] == ["2e-5"]
    rates = {"decoder": 1.5e-3, "qformer": 1e-5, "heads": 1e-5, "adapters": 0.01}
    assert line(learning_rates=rates)["rates"] == [
        "1e-5 Q-Former, heads", "1.5e-3 GPT-Neo decoder", "0.01 adapters",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["3 epochs", "7 500 steps"]),
        ({"epochs": 0.5, "steps": None}, ["0.5 epochs"]),
        ({"epochs": 1.0, "steps": 1}, ["1 epoch", "1 step"]),
        ({"epochs": None, "max_steps": 7500}, ["7 500 steps"]),
        ({"epochs": None, "max_steps": 10_000}, ["7 500 of 10 000 steps"]),
        ({"epochs": None, "max_steps": 300, "steps": None}, ["300 steps"]),
    ],
)
def test_length_is_what_was_asked_for_and_what_was_taken(
    changes: dict[str, Any], said: list[str]
) -> None:
    assert plain(line(**changes)["length"]) == said


def test_batches_losses_and_objectives() -> None:
    assert (line()["rows"], line(accumulation=1)["rows"]) == ("4 \u00d7 8", "8")
    assert (line()["loss"], line(loss=None)["loss"]) == ("2.08", "\u2013")
    assert line()["learns"] == "language"
    assert line(objectives={"lm": 1.0, "itc": 0.5})["learns"] == "lm 1, itc 0.5"


def test_phases_are_numbered_where_there_are_several() -> None:
    assert line()["number"] is None
    assert [found["number"] for found in phase_lines([phase(), phase(name="b")])] == [1, 2]


def curve(*phases: tuple[str | None, int]) -> list[LossPoint]:
    """A loss at each step of phases of so many steps, and one of evaluation at the last."""
    return [
        LossPoint(phase=name, step=step, loss=9.0 - step, eval_loss=9.0 if step == last else None)
        for name, last in phases
        for step in range(1, last + 1)
    ]


def places(chart: str, kind: str) -> list[list[float]]:
    """Where the points of each piece of a curve stand from left to right."""
    lines = re.findall(rf'<polyline class="line {kind}" points="([^"]*)"', chart)
    return [[float(point.split(",")[0]) for point in line.split()] for line in lines]


def marks(chart: str) -> list[float]:
    return [float(x) for x in re.findall(r'<line class="phase" x1="([\d.]+)"', chart)]


def test_a_phase_goes_on_where_the_one_before_it_ended() -> None:
    given = [phase(name="a", steps=4), phase(name="b", steps=6)]
    chart = loss_chart(curve(("a", 4), ("b", 6)), given)
    # Ten steps over the plot, which begins 44 from the left and ends 104 from the right.
    step = (WIDTH - 44 - 104) / 10
    expected = [[44 + step * n for n in (1, 2, 3, 4)], [44 + step * n for n in range(5, 11)]]
    for found, wanted in zip(places(chart, "train"), expected, strict=True):
        assert found == pytest.approx(wanted, abs=0.05)  # written to a tenth of a pixel
    assert marks(chart) == pytest.approx([44, 44 + 4 * step], abs=0.05)
    assert [len(piece) for piece in places(chart, "eval")] == [1, 1]
    assert "<title>phase 2 b begins after 4 steps</title>" in chart
    assert "phase b begins at 4" in chart  # for those who hear the page


def test_steps_after_the_last_log_count_too() -> None:
    """A phase of 8 steps that logs every fifth."""
    given = [phase(name="a", steps=8), phase(name="b", steps=8)]
    points = [LossPoint(phase=name, step=5, loss=1.0) for name in "ab"]
    chart = loss_chart(points, given)
    step = (WIDTH - 44 - 104) / 16
    found = [piece[0] for piece in places(chart, "train")]
    assert found == pytest.approx([44 + 5 * step, 44 + 13 * step], abs=0.06)


def test_a_name_without_room_is_left_to_its_number() -> None:
    given = [phase(name="a", steps=90), phase(name="short_one", steps=2), phase(name="c", steps=90)]
    chart = loss_chart(curve(("a", 90), ("short_one", 2), ("c", 90)), given)
    assert re.findall(r'<text class="phase"[^>]*>([^<]*)<', chart) == ["1 a", "2", "3 c"]


def test_one_phase_has_no_mark_and_neither_has_a_report_without_phases() -> None:
    assert marks(loss_chart(curve(("train", 3)), [phase(name="train", steps=3)])) == []
    old = loss_chart(curve((None, 3)))
    assert marks(old) == [] and [len(piece) for piece in places(old, "train")] == [3]


def test_a_name_is_text() -> None:
    given = [phase(name="<b>", steps=3), phase(name='"&', steps=3)]
    chart = loss_chart(curve(("<b>", 3), ('"&', 3)), given)
    assert "<b>" not in chart and "&lt;b&gt;" in chart and "&quot;&amp;" in chart


def test_phases_stand_in_both_files_and_read_back(tmp_path: Path) -> None:
    given = [phase(name="first", steps=4), phase(name="second", steps=6)]
    points = curve(("first", 4), ("second", 6))
    report = Report(title="t", n=0, metrics={}, phases=given, loss_curve=points)
    write_report(tmp_path, report, [], [])
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in content["phases"]] == ["first", "second"]
    assert Report.model_validate(content) == report
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Phases of training</h2>" in page and page.count('class="line train"') == 2


def test_a_report_of_an_earlier_version_renders_without_them(tmp_path: Path) -> None:
    content = {"title": "t", "n": 0, "metrics": {}, "loss_curve": [{"step": 1, "loss": 2.0}]}
    write_report(tmp_path, Report.model_validate(content), [], [])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="phases"' not in page and 'id="loss"' in page
