"""Confusion tables of closed sets of answers."""

from __future__ import annotations

from pathlib import Path

from qvft.evaluation.report.confusion import OTHER, confusions
from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score


def row(number: int, question: str, prediction: str, *references: str) -> PredictionRow:
    return PredictionRow(str(number), f"{number}.png", "question", question, prediction, references)


SIDES = [
    row(n, "Which side?", said, reference)
    for n, (said, reference) in enumerate(
        [("left", "Left")] * 9
        + [("Right.", "left")] * 3
        + [("right", "right")] * 7
        + [("?", "right")]
    )
]


def test_a_question_with_few_answers_has_a_table() -> None:
    (table,) = confusions(SIDES)
    assert table.title == "Which side?"
    assert table.answers == ["left", "right"]
    assert table.columns == ["left", "right", OTHER]
    assert table.counts == [[9, 3, 0], [0, 7, 1]]


def test_yes_no_questions_are_one_table() -> None:
    rows = [row(n, f"Is it {n}?", "yes" if n < 12 else "nothing", "yes") for n in range(15)]
    rows += [row(n, f"Is it {n}?", "no, it is not", "no") for n in range(15, 21)]
    (table,) = confusions(rows)
    assert (table.answers, table.counts) == (["yes", "no"], [[12, 0, 3], [0, 6, 0]])


def test_open_sets_and_few_items_have_none() -> None:
    assert confusions(SIDES[:-1]) == []  # 19 items
    assert confusions([row(n, "What?", "a", f"thing {n}") for n in range(30)]) == []
    assert confusions([*SIDES, row(99, "Which side?", "left", "left", "both")]) == []


def test_the_report_shows_it(tmp_path: Path) -> None:
    scores = score(SIDES)
    write_report(tmp_path, Report.from_scores(scores, title="sides"), SIDES, scores.per_item)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Which answer was given for which" in page
