"""Two evaluations of the same items: pairing, differences, changed items."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qvft.errors import DataError
from qvft.evaluation.comparison import Comparison, compare
from qvft.evaluation.evaluate_against import settings_apart
from qvft.evaluation.evaluation_facts import setting_differences
from qvft.evaluation.pairing import differing_parts, pair
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score


def asked(name: str, text: str, *references: str, **meta: str) -> PredictionRow:
    return PredictionRow(
        name, f"folder/{name}.png", "question", f"Which, {name}?", text, references, meta
    )


def captioned(name: str, text: str, *references: str) -> PredictionRow:
    return PredictionRow(name, f"{name}.png", "caption", None, text, references)


def said(rows: list[PredictionRow], *texts: str) -> list[PredictionRow]:
    return [replace(row, prediction=text) for row, text in zip(rows, texts, strict=True)]


def compared(a: list[PredictionRow], b: list[PredictionRow], metrics="auto") -> Comparison:
    return compare(a, score(a, metrics=metrics), pair(a, b, where="b"), name="b")


def test_a_difference_is_a_minus_b_in_the_unit_of_the_metric() -> None:
    a = [asked("1", "red", "red"), asked("2", "red", "red"), asked("3", "red", "blue")]
    b = said(a, "red", "blue", "red")
    found = compared(a, b).metrics["exact_match"]
    assert (found.a, found.b) == pytest.approx((100 * 2 / 3, 100 / 3))
    assert found.difference == pytest.approx(100 / 3)
    assert (found.n, found.changed, found.excludes_zero) == (3, 1, False)
    # All three draws of the changed image, or none of them.
    assert found.interval == pytest.approx((0.0, 100.0))


def test_an_interval_on_one_side_of_zero_says_so() -> None:
    a = [asked(str(i), "red", "red") for i in range(4)]
    found = compared(a, said(a, *["blue"] * 4)).metrics["exact_match"]
    assert (found.interval, found.excludes_zero) == ((100.0, 100.0), True)


def test_one_image_has_a_difference_but_no_interval() -> None:
    a = [asked("1", "red", "red")]
    found = compared(a, said(a, "blue")).metrics["exact_match"]
    assert (found.difference, found.interval, found.excludes_zero) == (100.0, None, None)


def test_equal_texts_differ_by_exactly_nothing_in_every_metric() -> None:
    a = [captioned(str(i), f"a dog runs {i} times", f"the dog runs {i} times") for i in range(3)]
    a += [asked(f"q{i}", "yes", "yes", answer_type="closed") for i in range(3)]
    found = compared(a, list(a))
    assert len(found.metrics) == 6 + 1 + 6
    assert {(m.difference, m.interval, m.excludes_zero) for m in found.metrics.values()} == {
        (0.0, (0.0, 0.0), False)
    }
    assert found.changed == [] and found.counts["changed"] == 0


def test_bleu_is_computed_from_the_counts_of_each_draw() -> None:
    """Of two images the interval ends where one is drawn twice: at the item's own difference."""
    a = [
        captioned("1", "a man rides a brown horse", "a man rides a brown horse"),
        captioned("2", "two dogs play in snow", "two dogs sleep in the snow today"),
    ]
    b = said(a, "a man rides a horse today", "two dogs sleep in the snow today")
    found = compared(a, b).metrics["Bleu_2"]
    mine, theirs = score(a), score(b)
    ends = sorted(
        float(mine.per_item[i]["Bleu_2"]) - float(theirs.per_item[i]["Bleu_2"]) for i in (0, 1)
    )
    # The toolkit adds 1e-9 to counts, which weighs half as much in a sum of two.
    assert found.interval == pytest.approx(tuple(ends), abs=1e-8)
    assert found.difference == mine.metrics["Bleu_2"] - theirs.metrics["Bleu_2"]
    assert found.difference != pytest.approx(sum(ends) / 2, abs=1e-3)  # it is no mean of items


def test_cider_keeps_the_document_frequencies_of_all_items() -> None:
    a = [
        captioned("1", "a man rides a horse", "a man rides a horse"),
        captioned("2", "a dog sleeps", "a dog plays in snow"),
        captioned("3", "snow falls", "snow falls on a roof"),
    ]
    b = said(a, "a man rides a horse", "a dog plays in snow", "snow falls")
    found = compared(a, b).metrics["CIDEr"]
    one = float(score(a).per_item[1]["CIDEr"]) - float(score(b).per_item[1]["CIDEr"])
    assert found.difference == pytest.approx(one / 3)
    # A third of draws without the changed image, a 27th with it alone: both beyond 2.5 %.
    assert found.interval == pytest.approx((one, 0.0))


def test_a_metric_with_its_own_denominator_is_compared_as_a_ratio() -> None:
    """LLaVA-Med's first drops wrong yes/no answers: 3 of 4 for A, 2 of 3 for B."""
    a = [asked(str(i), "yes", "yes", answer_type="closed") for i in range(4)]
    a = said(a, "yes", "yes", "maybe", "yes")
    b = said(a, "yes", "no", "maybe", "yes")
    found = compared(a, b, metrics=["llava_med"]).metrics["closed_accuracy_llava_med"]
    assert (found.a, found.b) == pytest.approx((75, 200 / 3))
    assert found.difference == pytest.approx(75 - 200 / 3)
    assert (found.n, found.changed) == (4, 1)


def test_less_unparseable_is_marked_as_better() -> None:
    a = [asked("1", "yes", "yes", answer_type="closed"), asked("2", "x", "no", answer_type="open")]
    found = compared(a, said(a, "perhaps", "x")).metrics["closed_unparseable"]
    assert (found.difference, found.lower_is_better) == (-100.0, True)


def test_changed_items_have_both_texts_and_both_scores() -> None:
    a = [
        asked("1", "red", "red"), asked("2", "red", "blue"), asked("3", "red", "blue"),
        asked("4", "red", "red"),
    ]  # fmt: skip
    found = compared(a, said(a, "green", "blue", "green", "red"))
    shown = [(c.id, c.change, c.prediction_a, c.prediction_b) for c in found.changed]
    assert shown == [
        ("1", "better", "red", "green"), ("2", "worse", "red", "blue"),
        ("3", "same", "red", "green"),
    ]  # fmt: skip
    assert [(c.metric, c.score_a, c.score_b) for c in found.changed] == [
        ("exact_match", 1.0, 0.0), ("exact_match", 0.0, 1.0), ("exact_match", 0.0, 0.0)
    ]  # fmt: skip
    assert found.counts == {
        "changed": 3, "better": 1, "worse": 1, "same": 1, "wrong_to_right": 1, "right_to_wrong": 1,
    }  # fmt: skip


def test_partly_right_is_not_right() -> None:
    answers = ("red",) * 2 + ("blue",) * 8
    a = [asked("1", "red", *answers), asked("2", "blue", *answers)]
    found = compared(a, said(a, "green", "red"), metrics=["vqa_2017"])
    assert (found.counts["better"], found.counts["wrong_to_right"]) == (2, 1)
    assert found.changed[0].score_a == pytest.approx(0.6)


def test_captions_are_neither_right_nor_wrong() -> None:
    a = [captioned("1", "a dog", "a dog"), captioned("2", "a cat", "a cat")]
    found = compared(a, said(a, "a dog", "a cow"))
    assert (found.counts["better"], found.counts["wrong_to_right"]) == (1, 0)


def test_items_of_one_side_are_left_out_of_every_figure() -> None:
    a = [asked("1", "red", "red"), asked("2", "red", "blue"), captioned("c", "a dog", "a dog")]
    b = [*said(a[:1], "blue"), asked("9", "red", "red")]
    found = compared(a, b)
    assert (found.n, found.only_in_a, found.only_in_b) == (1, 2, 1)
    assert (found.left_out_a, found.left_out_b) == (["2", "c"], ["9"])
    assert list(found.metrics) == ["exact_match"]
    assert (found.metrics["exact_match"].a, found.metrics["exact_match"].b) == (100.0, 0.0)


def test_the_order_of_the_other_does_not_matter() -> None:
    a = [asked(str(i), "red", "red") for i in range(4)]
    b = said(a, "red", "blue", "red", "red")
    assert compared(a, b[::-1]) == compared(a, b)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"question": "Where?"}, "question"),
        ({"image": "folder/2.png"}, "image"),
        ({"references": ("blue",)}, "references"),
        ({"kind": "caption", "question": None}, "kind"),
    ],
)
def test_another_item_under_the_same_id_is_refused(change: dict, part: str) -> None:
    a = [asked("1", "red", "red"), asked("2", "red", "red")]
    b = [replace(a[0], **change), a[1]]
    with pytest.raises(DataError, match="1 of 2 items") as caught:
        pair(a, b, where="other/eval")
    assert part in str(caught.value) and str(caught.value).startswith("other/eval: ")


def test_the_folder_of_an_image_and_the_order_of_references_do_not_matter() -> None:
    one = PredictionRow("1", "/data/a.png", "caption", None, "x", ("p", "q"))
    assert differing_parts(one, replace(one, image="a.png", references=("q", "p"))) == []
    assert differing_parts(one, replace(one, references=("p", "q", "q"))) == ["references"]


def test_nothing_in_common_is_refused() -> None:
    a = [asked("1", "red", "red")]
    with pytest.raises(DataError, match="no item is in both"):
        pair(a, [asked("2", "red", "red")], where="b")


def test_settings_are_compared_by_path() -> None:
    a = {"decode": {"batch": 8, "prompt": {"question": "Q"}}, "only": [1]}
    b = {"decode": {"batch": 8, "prompt": {"question": "P"}}}
    found = [(d.setting, d.a, d.b) for d in setting_differences(a, b)]
    assert found == [("decode.prompt.question", "Q", "P"), ("only", [1], None)]


def test_a_merged_folder_is_asked_like_its_run() -> None:
    run = {"model": {"decoder": "d", "image_size": 364, "dtype": "float32"}}
    merged = {"model": {"decoder": None, "image_size": None, "dtype": "float32"}}
    assert settings_apart(run, merged, ("run", "model")) == []
    other = settings_apart(run, merged, ("run", "run"))
    assert [item.setting for item in other] == ["model.image_size"]
