"""The metrics as `evaluate` modules: no network, the same figures as the functions."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest

from qvft.errors import DataError
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.modules import MODULES, load

ANSWERS = {
    "predictions": ["yes", "it is the left lung", "no"],
    "references": [["yes"], ["left lung"], ["yes"]],
}
INPUTS: dict[str, dict[str, Any]] = {
    "captions": {
        "predictions": ["a black dog runs", "two people eat"],
        "references": [["a black dog runs"], ["people eat lunch", "two people at a table"]],
    },
    "vqa_accuracy": {
        "predictions": ["yes", "red"],
        "references": [["yes"] * 10, ["red"] * 2 + ["blue"] * 8],
    },
    "medical_vqa": ANSWERS,
    "llava_med": ANSWERS,
    "multimedeval": ANSWERS,
    "retrieval": {
        "predictions": [[0.1, 0.9, 0.2], [0.3, 0.4, 0.2]],
        "references": [[1, 0], [2]],
    },
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an address or a connection fails."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a module reaches for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def test_captions_are_those_of_the_function() -> None:
    given = INPUTS["captions"]
    expected = score_captions(
        dict(zip("ab", given["references"], strict=True)),
        dict(zip("ab", given["predictions"], strict=True)),
    )
    assert load("captions").compute(**given) == expected.corpus


def test_vqa_accuracy_is_the_mean_in_percent() -> None:
    # Ten and two of ten humans agree: 1 and 0.6.
    found = load("vqa_accuracy").compute(**INPUTS["vqa_accuracy"])
    assert found == {"accuracy": pytest.approx(80.0), "rules": "2017"}


@pytest.mark.parametrize("rules, expected", [(None, 100.0), ("2017", 100.0), ("2021", 0.0)])
def test_the_rules_are_the_configuration(rules: str | None, expected: float) -> None:
    given = {"predictions": ["Yes."], "references": [["yes"] * 10]}
    found = load("vqa_accuracy", rules).compute(**given)
    assert found == {"accuracy": expected, "rules": rules or "2017"}


def test_rules_of_another_year_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of 2017, 2021"):
        load("vqa_accuracy", "2019")


def test_medical_figures_are_those_of_the_report() -> None:
    found = load("medical_vqa").compute(**ANSWERS)
    # One of two closed questions is right; the open answer holds both tokens among its five.
    assert found["closed_accuracy"] == 50.0
    assert found["open_exact_match"] == 0.0
    assert found["open_token_recall"] == 100.0
    assert found["open_token_f1"] == pytest.approx(200 * 0.4 / 1.4)
    assert found["n"] == 3


def test_answer_types_may_be_stated() -> None:
    found = load("medical_vqa").compute(**ANSWERS, answer_types=["closed", "closed", "open"])
    assert (found["closed_accuracy"], found["open_exact_match"]) == (50.0, 0.0)
    with pytest.raises(DataError, match="2 answer types; expected one for each of 3"):
        load("medical_vqa").compute(**ANSWERS, answer_types=["closed", "open"])


def test_llava_meds_two_closed_accuracies_stand_side_by_side() -> None:
    found = load("llava_med").compute(**ANSWERS)
    # "no" for "yes" leaves the first one's denominator.
    assert found["closed_accuracy_llava_med"] == 100.0
    assert found["closed_accuracy_llava_med_v2"] == 50.0
    assert (found["open_recall_llava_med"], found["n"]) == (100.0, 3)
    assert "open_accuracy_llava_med" not in found


def test_llava_meds_open_accuracy_chooses_among_candidates() -> None:
    for candidates, expected in ((["right lung", "left lung"], 100.0), (["lung", "left lung"], 0)):
        found = load("llava_med").compute(**ANSWERS, candidates=candidates)
        assert found["open_accuracy_llava_med"] == expected


def test_multimedevals_figures_lie_between_0_and_1() -> None:
    found = load("multimedeval").compute(**ANSWERS)
    assert (found["closed_accuracy_multimedeval"], found["open_accuracy_multimedeval"]) == (0.5, 1)
    assert found["recall_multimedeval"] == pytest.approx(2 / 3)
    # Each word of two answers is right or wrong; of "it is left lung" half are right.
    assert found["bleu_multimedeval"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_retrieval_takes_rows_and_their_texts() -> None:
    found = load("retrieval").compute(**INPUTS["retrieval"])
    # Image 1 ranks texts 1, 0, 2. Text 0 is nearer to image 1; text 2 is as near to image 0.
    assert found["image_to_text_recall_at_1"] == 50.0
    assert found["image_to_text_recall_at_5"] == 100.0
    assert found["text_to_image_recall_at_1"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"references": [[0], [2]]}, "columns of 2 texts"),
        ({"references": [[0, 1], [1, 2]]}, "columns of 4 texts"),
        ({"predictions": [[0.1, 0.9], [0.3, 0.4, 0.2]]}, "rows of 2, 3 similarities"),
    ],
)
def test_what_is_no_matrix_is_refused(change: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load("retrieval").compute(**(INPUTS["retrieval"] | change))


def test_similarities_that_are_nan_are_refused() -> None:
    rows = [[0.1, float("nan"), 0.2], [0.3, 0.4, 0.2]]
    with pytest.raises(ValueError, match="1 similarities are NaN"):
        load("retrieval").compute(predictions=rows, references=[[0, 1], [2]])


@pytest.mark.parametrize("name", MODULES)
def test_items_may_be_added_in_batches(name: str) -> None:
    metric, given = load(name), INPUTS[name]
    metric.add_batch(**{key: rows[:1] for key, rows in given.items()})
    metric.add_batch(**{key: rows[1:] for key, rows in given.items()})
    assert metric.compute() == load(name).compute(**given)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_to_score_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        load(name).compute(predictions=[], references=[])


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_computes(name: str) -> None:
    info = load(name).info
    assert info.description
    assert info.citation
    assert info.reference_urls
    assert set(info.features) == {"predictions", "references"}


def test_no_cache_of_hugging_face_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluate

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "file" / "metrics")
    assert load("captions").compute(**INPUTS["captions"])["Bleu_1"] > 0.5


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of captions, vqa_accuracy"):
        load("bleu")
