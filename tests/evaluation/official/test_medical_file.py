"""`qvft.score medical`: every definition in use, for anybody's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qvft.evaluation.metrics import llava_med, medical, multimedeval
from qvft.score import main

PROJECT = Path(__file__).resolve().parents[3]
# Means of 150 doubles, added in the same order; torchmetrics' BLEU is computed in float32.
ROUNDING, FLOAT32 = 1e-15, 5e-7
TOTALS = {
    "exact match score": "open_exact_match_llava_med/v1",
    "f1 score": "open_f1_llava_med/v1",
    "precision": "open_precision_llava_med/v1",
    "recall": "open_recall_llava_med/v1",
    "bleu_score": "open_bleu_llava_med/v1",
    "bleu_score_1": "open_bleu_1_llava_med/v1",
    "bleu_score_2": "open_bleu_2_llava_med/v1",
    "bleu_score_3": "open_bleu_3_llava_med/v1",
    "open accuracy": "open_accuracy_llava_med/v1",
}
MULTIMEDEVAL_TOTALS = {
    "bleu": "bleu_multimedeval/v1",
    "F1": "f1_multimedeval/v1",
    "recall": "recall_multimedeval/v1",
    "closedQuestionsAccuracy": "closed_accuracy_multimedeval/v1",
    "openQuestionsRecall": "open_recall_multimedeval/v1",
    "openQuestionsAccuracy": "open_accuracy_multimedeval/v1",
}


def row(identifier: str, kind: str, reference: str, prediction: str) -> dict[str, str]:
    return {
        "id": identifier, "answer_type": kind, "question": "?", "reference": reference,
        "prediction": prediction,
    }  # fmt: skip


ROWS = [
    row("a", "CLOSED", "yes", "The answer is yes."),
    row("b", "CLOSED ", "no", "yes"),
    row("c", "closed", "no", "maybe"),
    row("d", "OPEN", "left lung", "It is the left lung"),
    row("e", "OPEN", "kidney", ""),
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def scores(path: Path, *arguments: str) -> dict[str, Any]:
    """What `--json` holds after a call that ends well."""
    out = path.with_name("out.json")
    assert main(["medical", "--rows", str(path), "--json", str(out), *arguments]) == 0
    return json.loads(out.read_text())


def test_totals_equal_the_original_programs(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "reference" / "medical"
    if not folder.is_dir():
        pytest.skip(f"no reference numbers: {folder} is absent")
    rows = tmp_path / "rows.json"
    rows.write_bytes((folder / "rows.json").read_bytes())
    found = scores(rows)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    for program, version in (("run_eval_before_fix", 1), ("run_eval_current", 2)):
        names = {**TOTALS, "yes/no accuracy": f"closed_accuracy_llava_med/v{version}"}
        totals = expected[program]["totals_percent"]
        assert len(totals) == len(names)
        for key, value in totals.items():
            assert found["metrics"][names[key]] == pytest.approx(value, rel=ROUNDING), key
        counts = expected[program]["counts"]
        assert found["n_by_metric"][names["yes/no accuracy"]] == counts["closed_in_the_denominator"]
    for key, value in expected["multimedeval"]["totals"].items():
        near = FLOAT32 if key == "bleu" else ROUNDING
        assert found["metrics"][MULTIMEDEVAL_TOTALS[key]] == pytest.approx(value, rel=near), key
    assert (found["n"], len(found["per_item"])) == (300, 300)
    assert found["counts"]["left_out_by_closed_accuracy_llava_med/v1"] == 46


def test_every_definition_stands_under_its_versioned_name(tmp_path: Path) -> None:
    choices = tmp_path / "candidates.json"
    choices.write_text(json.dumps({"0": ["left lung", "kidney", 3]}))
    found = scores(lines(tmp_path / "rows.jsonl", ROWS), "--candidates", str(choices))
    texts = {**medical.DEFINITIONS, **llava_med.DEFINITIONS, **multimedeval.DEFINITIONS}
    assert list(found["definitions"].values()) == list(texts.values())
    assert list(found["metrics"]) == [text.partition(":")[0] for text in texts.values()]
    assert found["metrics"].keys() == found["units"].keys() == found["n_by_metric"].keys()


def test_every_versioned_name_stands_in_the_documentation() -> None:
    texts = {**medical.DEFINITIONS, **llava_med.DEFINITIONS, **multimedeval.DEFINITIONS}
    page = (PROJECT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    names = [text.partition(":")[0] for text in texts.values()]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_a_verbose_answer_counts_and_outcomes_are_counted(tmp_path: Path, capsys) -> None:
    found = scores(lines(tmp_path / "rows.jsonl", ROWS))
    assert found["n"] == 5
    assert found["metrics"]["closed_accuracy/v2"] == 0
    assert found["metrics"]["closed_accuracy_anywhere/v1"] == pytest.approx(100 / 3)
    assert found["metrics"]["closed_accuracy_llava_med/v1"] == 50  # "yes" for "no" is left out
    assert found["metrics"]["closed_accuracy_llava_med/v2"] == pytest.approx(100 / 3)
    assert found["per_item"]["b"]["closed_accuracy_llava_med/v1"] is None
    assert found["per_item"]["c"]["parsed_anywhere"] == "neither"
    assert found["counts"] == {
        "closed": 3, "open": 2, "yes_no": 3, "unparseable": 2, "said_both": 0, "said_neither": 1,
        "empty_predictions": 1, "left_out_by_closed_accuracy_llava_med/v1": 1,
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "closed_accuracy_anywhere/v1" in shown
    assert all(" ".join(note.split()) in " ".join(shown.split()) for note in found["notes"])


@pytest.mark.parametrize("content", [ROWS, {"rows": ROWS}, {"rows": ROWS, "candidates": None}])
def test_a_list_and_an_object_of_rows_give_the_same_as_lines(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content, indent=1))
    expected = scores(lines(tmp_path / "rows.txt", ROWS))
    assert scores(path)["per_item"] == expected["per_item"]


def test_candidates_beside_the_rows_are_used_and_others_come_first(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": ROWS, "candidates": {"0": ["left lung", "kidney"]}}))
    assert scores(path)["metrics"]["open_accuracy_llava_med/v1"] == 50
    other = tmp_path / "other.json"
    other.write_text(json.dumps(["lung"]))
    found = scores(path, "--candidates", str(other))
    assert found["metrics"]["open_accuracy_llava_med/v1"] == 0
    assert len(found["files"]["candidates"]["sha256"]) == 64


def test_without_candidates_there_is_no_open_accuracy_and_a_note(tmp_path: Path) -> None:
    found = scores(lines(tmp_path / "rows.jsonl", ROWS))
    assert "open_accuracy_llava_med/v1" not in found["metrics"]
    assert any("no candidates" in note for note in found["notes"])


def test_only_open_questions_have_no_closed_metrics(tmp_path: Path) -> None:
    found = scores(lines(tmp_path / "rows.jsonl", ROWS[3:]))
    # MultiMedEval goes by the reference; neither of these is yes or no.
    assert not any(name.startswith("closed_") for name in found["metrics"])


def test_where_v1_leaves_all_out_it_is_0_as_in_the_script(tmp_path: Path) -> None:
    found = scores(lines(tmp_path / "rows.jsonl", [ROWS[1]]))
    assert found["metrics"]["closed_accuracy_llava_med/v1"] == 0
    assert found["n_by_metric"]["closed_accuracy_llava_med/v1"] == 0


def without(key: str) -> dict[str, str]:
    return {name: value for name, value in ROWS[0].items() if name != key}


@pytest.mark.parametrize(
    "rows, says",
    [
        *[([ROWS[1], without(key)], f":2: `{key}` is missing") for key in ROWS[0]],
        ([ROWS[0], {**ROWS[1], "id": "a"}], ":2: `id` a occurs twice, first at"),
        ([{**ROWS[0], "answer_type": "OTHER"}], ':1: `answer_type` is "OTHER"; expected CLOSED or'),
        ([{**ROWS[0], "prediction": None}], ":1: `prediction` is null; expected a string"),
        ([{**ROWS[0], "reference": ["yes"]}], ":1: `reference` is a list"),
        ([ROWS[0], [1]], ":2: a list; expected a JSON object"),
        ([], ": no rows; expected at least one"),
    ],
)
def test_a_wrong_line_gets_one_message_with_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture, rows: list[Any], says: str
) -> None:
    path = lines(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out.json"
    assert main(["medical", "--rows", str(path), "--json", str(out)]) == 2
    captured = capsys.readouterr()
    assert f"qvft: {path}{says}" in captured.err
    assert (captured.err.count("\n"), captured.out, out.exists()) == (1, "", False)


@pytest.mark.parametrize(
    "text, says",
    [
        ('{"rows": [\n{"id": 1,}]}', ":2: not valid JSON"),
        ('{\n"row": []}', ": `rows` is missing; rename `row` to it"),
        ('{"rows": [{"id": 1}]}', ", rows, record 0: `answer_type` is missing"),
        ('{"rows": 3}', ", rows: a number; expected a list of objects"),
        ('"x"', ": a string; expected an object with `rows`"),
        ('{"rows": [{}], "candidates": {"0": []}}', ", candidates: no candidates"),
        ("", ":1: not valid JSON: it ends too early"),
    ],
)
def test_wrong_json_gets_one_message_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str, says: str
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    assert main(["medical", "--rows", str(path)]) == 2
    captured = capsys.readouterr()
    assert f"qvft: {path}{says}" in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["medical", "--rows", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
