"""LLaVA-Med's and MultiMedEval's scores, item by item, against their own programs' numbers."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from qvft.evaluation.metrics import llava_med, multimedeval
from qvft.evaluation.metrics.llava_med import Candidates, normalised

# The same doubles in the same order: 1 ulp for another build of `log` and `exp`.
ROUNDING = 1e-15
# torchmetrics computes BLEU in float32, by division, log, exp and product of 6e-8 each.
FLOAT32 = 5e-7


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> dict[str, Any]:
    folder = shared_data / "reference" / "medical"
    if not folder.is_dir():
        pytest.skip(f"no reference numbers: {folder} is absent")
    given = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return {**given, **json.loads((folder / "expected.json").read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def candidates(reference: dict[str, Any]) -> Candidates:
    return Candidates.of([str(answer) for answer in reference["candidates"]["0"]])


def test_texts_are_normalised_as_the_script_does(reference: dict[str, Any]) -> None:
    for row, expected in zip(reference["rows"], reference["normalised"], strict=True):
        assert {key: normalised(row[key]) for key in expected} == expected


@pytest.mark.parametrize(
    "program, name",
    [
        ("run_eval_current", "closed_accuracy_llava_med_v2"),
        ("run_eval_before_fix", "closed_accuracy_llava_med"),
        ("run_eval_pvqa", "closed_accuracy_llava_med"),
    ],
)
def test_each_closed_item_equals_the_script(
    reference: dict[str, Any], program: str, name: str
) -> None:
    hits = []
    for row, expected in zip(reference["rows"], reference[program]["items"], strict=True):
        if "closed_hit" in expected:
            found = llava_med.item_scores(row["prediction"], row["reference"], closed=True)
            hits.append((row["id"], found[name] == expected["closed_hit"]))
    assert len(hits) == 150
    assert [identifier for identifier, same in hits if not same] == []


@pytest.mark.parametrize("program", ["run_eval_current", "run_eval_before_fix", "run_eval_pvqa"])
def test_each_open_item_equals_the_script(
    reference: dict[str, Any], candidates: Candidates, program: str
) -> None:
    compared = 0
    for row, expected in zip(reference["rows"], reference[program]["items"], strict=True):
        if "closed_hit" in expected:
            continue
        found = llava_med.item_scores(
            row["prediction"], row["reference"], closed=False, candidates=candidates
        )
        for key, value in expected.items():
            name = f"open_{'accuracy' if key == 'open_hit' else key}_llava_med"
            assert found[name] == pytest.approx(value, rel=ROUNDING, abs=0), (row["id"], key)
            compared += 1
    assert compared == 150 * 9


def test_each_item_equals_multimedeval(reference: dict[str, Any]) -> None:
    for row, expected in zip(reference["rows"], reference["multimedeval"]["items"], strict=True):
        found = multimedeval.item_scores(row["prediction"], row["reference"])
        assert found["f1_multimedeval"] == pytest.approx(expected["f1"], rel=ROUNDING, abs=0)
        assert found["recall_multimedeval"] == expected["recall"]
        assert found["bleu_multimedeval"] == pytest.approx(expected["bleu"], rel=FLOAT32)
        assert found.get("closed_accuracy_multimedeval") == expected["closed_right"], row["id"]
        assert found.get("open_accuracy_multimedeval") == expected["open_right"], row["id"]


def closed(prediction: str, reference: str) -> list[float | None]:
    """The closed scores, v1 and v2."""
    return list(llava_med.item_scores(prediction, reference, closed=True).values())


def test_the_first_version_leaves_wrong_yes_no_answers_out() -> None:
    assert closed("yes", "yes") == [1, 1]
    assert closed("no", "yes") == [None, 0]
    assert closed("maybe", "yes") == [0, 0]
    assert closed("unknown", "no") == [1, 1]  # a substring


def test_none_becomes_0_before_no_is_looked_for() -> None:
    assert closed("None", "no") == [0, 0]


def test_a_hundred_wrong_and_right_answers() -> None:
    """Of 100 pairs 48 are right: v1 says 100 %, for it keeps the right ones alone."""
    scores = [closed("yes", "yes" if n < 48 else "no") for n in range(100)]
    first = [score for score, _ in scores if score is not None]
    assert (len(first), sum(first)) == (48, 48)
    assert sum(score or 0 for _, score in scores) == 48


def test_an_empty_answer_scores_nothing(candidates: Candidates) -> None:
    found = llava_med.item_scores("", "axial", closed=False, candidates=candidates)
    assert set(found.values()) == {0.0}
    assert closed("", "yes") == [0, 0]
    assert set(multimedeval.item_scores("", "axial").values()) == {0.0}


def test_an_empty_answer_gets_the_first_candidate() -> None:
    found = llava_med.item_scores("", "x", closed=False, candidates=Candidates.of(["X.", "y"]))
    assert found["open_accuracy_llava_med"] == 1


def test_composed_and_decomposed_letters_are_the_same() -> None:
    composed, decomposed = (unicodedata.normalize(form, "phổi phải") for form in ("NFC", "NFD"))
    found = llava_med.item_scores(composed, decomposed, closed=False)
    assert found["open_f1_llava_med"] == found["open_bleu_2_llava_med"] == 1
    assert multimedeval.item_scores(composed, decomposed)["recall_multimedeval"] == 1
    assert closed(f"yes {composed}", decomposed) == [1, 1]


def test_every_definition_is_named_and_versioned() -> None:
    for name, text in {**llava_med.DEFINITIONS, **multimedeval.DEFINITIONS}.items():
        stem, _, version = name.partition("_v")
        assert text.startswith(f"{stem}/v{version or 1}:")
