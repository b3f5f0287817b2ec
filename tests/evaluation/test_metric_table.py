"""Metrics from outside: registered, or named by where they are defined."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from qvft.errors import RecipeError
from qvft.evaluation.available_metrics import require_known_metrics
from qvft.evaluation.comparison import compare
from qvft.evaluation.metric import Metric, ScoreInfo, by_item
from qvft.evaluation.metric_table import (
    FROM_MODEL,
    METRICS,
    find_metric,
    known_scores,
    register_metric,
)
from qvft.evaluation.pairing import pair
from qvft.evaluation.report.page import label
from qvft.evaluation.report.table import headline
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import main_metric, score

LENGTH = ScoreInfo(
    "same_length", definition="same_length/v1", label="same length", main=0, breakdown=True
)
METRIC = Metric(
    "length",
    "question",
    by_item(lambda r: {"same_length": float(len(r.prediction) == len(r.references[0]))}, [LENGTH]),
    (LENGTH,),
)


@pytest.fixture(autouse=True)
def _own_table() -> Iterator[None]:
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


def rows(*predictions: str) -> list[PredictionRow]:
    return [
        PredictionRow(str(n), str(n), "question", "?", text, ("cat",), {"half": str(n % 2)})
        for n, text in enumerate(predictions)
    ]


@pytest.fixture
def registered() -> Metric:
    return register_metric(METRIC)


def test_a_registered_metric_is_scored_broken_down_and_shown(registered: Metric) -> None:
    found = score(rows("dog", "mouse", "cow", "cat"), metrics=["length"])
    assert found.metrics == {"same_length": 75.0}
    assert [e["same_length"] for e in found.breakdowns["half"]] == [100.0, 50.0]
    assert main_metric(found.per_item[0]) == "same_length"
    assert headline(found.metrics) == ["same_length"]
    assert label("same_length") == "same length"


def test_a_registered_metric_is_compared(registered: Metric) -> None:
    a, b = rows("dog", "cat"), rows("mouse", "cat")
    found = compare(a, score(a, metrics=["length"]), pair(a, b, where="b"), name="b")
    assert found.metrics["same_length"].difference == 50.0
    assert found.changed[0].metric == "same_length"


def test_names_of_metrics_and_scores_are_unique() -> None:
    assert len(known_scores()) == len(
        [s for m in METRICS.values() for s in m.scores]
        + [one for scores in FROM_MODEL for one in scores]
    )
    assert register_metric(METRICS["answers"]) is METRICS["answers"]
    for other in (
        Metric("answers", "question", METRIC.function, (LENGTH,)),
        Metric("other", "question", METRIC.function, (ScoreInfo("CIDEr"),)),
    ):
        with pytest.raises(ValueError, match="already"):
            register_metric(other)


def test_a_dotted_name_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "house.metrics", sys.modules[__name__])
    assert find_metric("house.metrics.METRIC") is METRIC
    assert find_metric("house.metrics:METRIC") is METRIC
    require_known_metrics(["auto"])
    require_known_metrics(["auto", "house.metrics.METRIC"])
    found = score(rows("cat", "dog"), metrics=["auto", "house.metrics.METRIC"])
    assert found.metrics.keys() >= {"exact_match", "same_length"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_package.metric", "no_such_package"),
        ("json.no_such_name", "no_such_name"),
        ("json.dumps", "function"),
        ("anwers", "answers"),
    ],
)
def test_a_name_that_means_no_metric_is_refused(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refusal:
        require_known_metrics([name])
    assert refusal.value.where == "eval.metrics"
