"""Scores of several texts per prompt: metrics, and functions of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError, RecipeError
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.pairs.text_scores import kinds_of, scorable, score_texts

CAPTIONS = (("a red square", "a square"), ("a blue circle on white",), ("two green lines",))


def caption(number: int, references: tuple[str, ...] = ("a square",)) -> Row:
    sample = Sample(f"s{number}", ImageFile(Path(f"{number}.png")))
    return Row(sample.id, sample, "caption", None, references[0], references, {})


def question(number: int, *answers: str) -> Row:
    sample = Sample(f"s{number}", ImageFile(Path(f"{number}.png")))
    target = answers[0] if answers else ""
    return Row(f"q{number}", sample, "question", "What?", target, answers, {"organ": "lung"})


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], str]:
    """A function that makes another importable, and returns its dotted name."""

    def register(function: Callable[..., Any]) -> str:
        module = ModuleType("own_scores")
        module.score = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_scores", module)
        return "own_scores.score"

    return register


@pytest.mark.parametrize(
    ("metric", "name"), [("cider", "CIDEr"), ("bleu4", "Bleu_4"), ("rouge_l", "ROUGE_L")]
)
def test_caption_scores_are_those_of_the_evaluation(metric: str, name: str) -> None:
    """Each text as if it alone had been predicted, with the document frequencies of all rows."""
    rows = [caption(number, references) for number, references in enumerate(CAPTIONS)]
    texts = [("a red square", "a square on white"), ("a circle",), ("a red line", "two", "lines")]
    found = score_texts(rows, texts, metric)
    references = {row.id: row.references for row in rows}
    for row, own_texts, scores in zip(rows, texts, found, strict=True):
        for text, score in zip(own_texts, scores, strict=True):
            predictions = {one.id: "" for one in rows} | {row.id: text}
            assert score == score_captions(references, predictions).per_item[name][row.id]


def test_answers_are_scored_one_by_one() -> None:
    rows = [question(0, *["red"] * 3, *["crimson"] * 7), question(1, "a cat", "cat")]
    texts = [("red", "blue"), ("cat",)]
    assert score_texts(rows, texts, "exact_match") == [[1, 0], [1]]
    assert score_texts(rows[:1], texts[:1], "vqa_accuracy") == [[pytest.approx(0.9), 0]]
    assert score_texts(rows, [("red red",), ("a dog",)], "token_f1")[0][0] == pytest.approx(2 / 3)


def test_rows_that_a_metric_does_not_score_are_left_out(caplog) -> None:
    rows = [caption(0), question(1, "red", "red")]
    assert scorable(rows, "cider") == rows[:1]
    assert scorable(rows, "vqa_accuracy") == rows[1:]
    assert scorable(rows, "exact_match") == rows
    assert "1 of 2 rows are left out: cider scores captions alone" in caplog.text


@pytest.mark.parametrize(
    ("rows", "metric", "message"),
    [
        ([question(0, "red")], "cider", "cider of data without captions"),
        ([caption(0)], "vqa_accuracy", "without questions"),
        ([question(0, "red")], "vqa_accuracy", "row q0 has 1 reference; expected 2 or more"),
        ([question(0)], "exact_match", "row q0 has no references"),
        ([], "exact_match", "pairs alone have none"),
    ],
)
def test_rows_that_do_not_fit_a_metric_are_refused(rows: list, metric: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scorable(rows, metric)


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match='did you mean "cider"'):
        kinds_of("cidr")
    with pytest.raises(RecipeError, match="no_such_package"):
        kinds_of("no_such_package.score")


def test_an_own_function_gets_trls_columns(own) -> None:
    given: dict[str, Any] = {}

    def score(prompts, completions, **columns):
        given.update(columns, prompts=prompts)
        return [len(text) for text in completions]

    rows = [caption(0), question(1, "red")]
    assert score_texts(rows, [("ab", "abc"), ("a",)], own(score)) == [[2, 3], [1]]
    assert given["prompts"] == ["", "", "What?"]
    assert given["references"] == [["a square"], ["a square"], ["red"]]
    assert given["id"] == ["s0", "s0", "q1"]
    assert given["meta"][2] == {"organ": "lung"}


def test_an_own_function_may_leave_texts_out_and_needs_no_references(own) -> None:
    name = own(lambda completions, **_: [None for _ in completions])
    rows = [question(0)]
    assert scorable(rows, name) == rows
    with pytest.raises(DataError, match="row q0 has no references"):
        scorable(rows, name, against_reference=True)
    assert score_texts(rows, [("a", "b")], name) == [[None, None]]


def _raises(**_: Any) -> list[float]:
    raise KeyError("completions")


def _leaves(**_: Any) -> list[float]:
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_raises, "it raises KeyError"),
        (_leaves, "it raises SystemExit"),
        (lambda **_: [1.0], "it returns 1 scores for 2 texts"),
        (lambda **_: [1.0, float("nan")], "it returns nan for a text of row s0"),
        (lambda **_: [float("inf"), 1.0], "it returns inf"),
        (lambda **_: ["good", "bad"], "it raises ValueError"),
        (lambda **_: None, "it raises TypeError"),
    ],
)
def test_a_broken_function_is_refused_by_name(function, message: str, own) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        score_texts([caption(0)], [("a", "b")], own(function))
    assert "own_scores.score" in str(caught.value)
