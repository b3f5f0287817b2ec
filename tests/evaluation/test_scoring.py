from __future__ import annotations

import pytest

from qvft.errors import UserError
from qvft.evaluation.metrics.captions import NAMES
from qvft.evaluation.rows import PredictionRow, row_to_json
from qvft.evaluation.scoring import applicable_groups, score


def asked(
    prediction: str, *references: str, image: str = "i", text: str = "?", **meta: str
) -> PredictionRow:
    return PredictionRow("q", image, "question", text, prediction, references, meta)


def caption(prediction: str, *references: str, image: str = "i") -> PredictionRow:
    return PredictionRow("c", image, "caption", None, prediction, references)


def test_auto_takes_captions_for_captions() -> None:
    assert applicable_groups([caption("a", "a")]) == ["captions"]


def test_auto_takes_medical_where_closed_or_open_is_stated() -> None:
    assert applicable_groups([asked("a", "a", answer_type="OPEN")]) == ["medical", "answers"]


def test_auto_takes_the_2017_rules_for_ten_answers() -> None:
    assert applicable_groups([asked("a", *["a"] * 10, answer_type="other")]) == (
        ["vqa_2017", "answers"]
    )


def test_auto_takes_exact_match_for_other_questions() -> None:
    assert applicable_groups([asked("a", "a"), caption("a", "a")]) == ["captions", "answers"]


def test_medical_scores_by_hand() -> None:
    rows = [
        asked("yes", "Yes", image="1", answer_type="CLOSED"),
        asked("no lesion", "no", image="2", answer_type="CLOSED"),
        asked("right lobe", "left lobe", image="2", answer_type="OPEN"),
        asked("liver.", "Liver", image="3", answer_type="OPEN"),
    ]
    scores = score(rows)
    assert scores.n == {"all": 4, "medical": 4, "answers": 4}
    expected = {
        "accuracy": 50, "closed_accuracy": 50, "closed_accuracy_anywhere": 100,
        "closed_unparseable": 50, "closed_undecided": 0, "open_exact_match": 50,
        "open_token_recall": 75, "open_token_f1": 75, "open_bleu_1": 75, "exact_match": 50,
    }  # fmt: skip
    assert scores.metrics == pytest.approx(expected)
    assert set(scores.units.values()) == {"percent"}
    assert scores.per_item[1]["parsed"] == "unparseable"
    assert scores.per_item[1]["parsed_anywhere"] == "no"
    assert (scores.counts["unparseable"], scores.counts["undecided"]) == (1, 0)


def test_papers_definitions_stand_side_by_side() -> None:
    rows = [
        asked("no", "yes", image="1", answer_type="CLOSED"),
        asked("yes", "yes", image="2", answer_type="CLOSED"),
        asked("left lobe", "left", image="3", answer_type="OPEN"),
    ]
    scores = score(rows, metrics=["llava_med", "multimedeval"])
    # v1 leaves the wrong answer out, v2 counts it; MultiMedEval's figures lie between 0 and 1.
    assert scores.metrics["closed_accuracy_llava_med"] == 100
    assert scores.metrics["closed_accuracy_llava_med_v2"] == 50
    assert scores.metrics["closed_accuracy_multimedeval"] == 0.5
    assert scores.units["closed_accuracy_multimedeval"] == "0..1"
    assert scores.metrics["open_recall_llava_med"] == 100
    assert "closed_accuracy_llava_med" not in scores.per_item[0]
    assert "open_accuracy_llava_med" not in scores.metrics  # nothing to choose from


def test_every_metric_has_a_unit_a_definition_and_an_interval_that_holds_it() -> None:
    rows = [asked("a", "a", image=str(i)) for i in range(3)]
    rows += [caption(f"dog {i}", f"a dog {i}", image=str(i)) for i in range(3)]
    scores = score(rows)
    assert set(scores.metrics) == {*NAMES, "caption_exact_match", "exact_match"}
    assert set(scores.metrics) == set(scores.units) == set(scores.definitions)
    for name, (low, high) in scores.intervals.items():
        # The means of the draws are rounded in another order than the value.
        assert low - 1e-9 <= scores.metrics[name] <= high + 1e-9
    assert scores.units["CIDEr"] == "0..10"


def test_vqa_accuracy_is_in_percent() -> None:
    rows = [asked("red", *["red"] * 3, *["blue"] * 7)]
    assert score(rows, metrics=["vqa_2017", "vqa_2021"]).metrics == pytest.approx(
        {"vqa_accuracy_2017": 90.0, "vqa_accuracy_2021": 90.0}
    )


def test_per_item_scores_are_parallel_to_the_rows() -> None:
    scores = score([caption("a", "a"), asked("b", "x"), asked("x", "x")])
    assert "CIDEr" in scores.per_item[0] and "exact_match" not in scores.per_item[0]
    assert [item["exact_match"] for item in scores.per_item[1:]] == [0, 1]


def test_breakdowns_group_by_meta_and_question() -> None:
    rows = [
        asked("a", "a", image="1", text="Which?", organ="liver"),
        asked("b", "a", image="2", text="Which?", organ="liver"),
        asked("b", "b", image="3", text="Where?"),
    ]
    found = score(rows).breakdowns
    assert [(e["value"], e["n"], e["exact_match"]) for e in found["organ"]] == (
        [("liver", 2, 50), ("(none)", 1, 100)]
    )
    assert [e["value"] for e in found["question"]] == ["Which?", "Where?"]


def test_a_key_with_too_many_values_has_no_breakdown() -> None:
    rows = [asked("a", "a", text=f"Which {i}?", serial=str(i)) for i in range(31)]
    assert score(rows).breakdowns == {}


def test_empty_and_equal_outputs_are_counted() -> None:
    counts = score([asked("", "a"), asked("x", "a"), asked("x", "a"), asked("y", "a")]).counts
    assert counts["empty_predictions"] == 1
    assert counts["different_predictions"] == 3
    assert counts["most_common_prediction_share"] == 50


@pytest.mark.parametrize(
    "rows, metrics, message",
    [
        ([asked("a", "a")], ["bleurt"], "bleurt"),
        ([asked("a", "a")], ["captions"], "without captions"),
        ([asked("a", "a")], ["vqa_2017"], "has 1 answers"),
        ([asked("a")], "auto", "no references"),
    ],
)
def test_what_cannot_be_scored_is_an_error(rows, metrics, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(rows, metrics=metrics)


def test_no_rows_give_no_metrics() -> None:
    assert score([]).metrics == {}


def test_row_as_json_has_a_question_only_where_one_was_asked() -> None:
    row = row_to_json(asked("b", "a", organ="liver"), {"exact_match": 0.0})
    assert row == {
        "id": "q", "image": "i", "kind": "question", "question": "?", "prediction": "b",
        "references": ["a"], "scores": {"exact_match": 0.0}, "meta": {"organ": "liver"},
    }  # fmt: skip
    assert "question" not in row_to_json(caption("b", "a"), {})


def test_meteor_is_scored_where_it_is_asked_for(monkeypatch) -> None:
    """Its corpus score is no mean of the items, so it has no interval."""
    from qvft.evaluation import caption_metrics

    def score_them(references, predictions):
        return 0.4, dict(zip(predictions, (0.5, 0.25), strict=True))

    monkeypatch.setattr(caption_metrics, "meteor", score_them)
    rows = [
        PredictionRow(str(n), f"{n}.png", "caption", None, "a dog", ("a dog",)) for n in range(2)
    ]
    found = score(rows, metrics=["meteor"])
    assert (found.metrics, found.intervals) == ({"METEOR": 0.4}, {})
    assert [item.get("METEOR") for item in found.per_item] == [0.5, 0.25]
