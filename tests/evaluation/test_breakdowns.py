"""What an item counts under, also in real data with several types a question."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from PIL import Image

from qvft.data.formats import read_samples
from qvft.data.rows import evaluation_rows
from qvft.evaluation.breakdowns import break_down, item_values
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score


def predicted(samples, text: str) -> list[PredictionRow]:
    return [
        PredictionRow(
            row.id, row.sample.image.name, row.kind, row.question, text, row.references, row.meta
        )
        for row in evaluation_rows(samples)
    ]


def row(name: str, text: str, **meta: str) -> PredictionRow:
    return PredictionRow(name, name, "question", "Which?", text, ("yes",), meta)


def test_an_item_with_several_values_counts_once_under_each() -> None:
    rows = [
        row("1", "yes", type="PRES", types="PRES,ABN"),
        row("2", "no", type="ABN", types="ABN,ABN"),
        row("3", "yes", type="PRES", types="PRES"),
    ]
    found = break_down(rows, [{}] * 3)
    assert "types" not in found
    shown = [(e["value"], e["n"], e["exact_match"]) for e in found["type"]]
    assert shown == [("ABN", 2, 50.0), ("PRES", 2, 100.0)]


def test_a_plural_alone_is_one_value() -> None:
    values = item_values(row("1", "yes", findings="mass,fluid", organ=" "))
    assert values == {
        "findings": ("mass,fluid",), "organ": ("(none)",), "kind": ("question",),
        "question": ("Which?",),
    }  # fmt: skip


def test_vqa_rad_questions_are_broken_down_by_organ_and_by_each_of_their_types(
    shared_data: Path,
) -> None:
    folder = shared_data / "vqa_rad"
    samples = list(read_samples("vqa_rad", str(folder), split="test"))
    scores = score(predicted(samples, "yes"))
    raw = json.loads((folder / "VQA_RAD Dataset Public.json").read_text(encoding="utf-8"))
    test = [record for record in raw if record["phrase_type"].startswith("test")]
    types = Counter(
        kind.strip().upper() for record in test for kind in record["question_type"].split(",")
    )
    found = {e["value"]: e["n"] for e in scores.breakdowns["question_type"]}
    assert found == types
    assert sum(found.values()) == 459  # of 451 questions; eight are of two types
    organs = {e["value"]: e["n"] for e in scores.breakdowns["organ"]}
    assert organs == Counter(record["image_organ"] for record in test)
    chest = next(e for e in scores.breakdowns["organ"] if e["value"] == "CHEST")
    assert {"closed_accuracy", "open_exact_match", "open_token_recall"} <= set(chest)
    assert {e["value"] for e in scores.breakdowns["answer_type"]} == {"closed", "open"}


def test_slake_questions_are_broken_down_by_modality_location_and_content(tmp_path: Path) -> None:
    records = []
    for index, (modality, location) in enumerate([("CT", "Lung"), ("MRI", "Brain")]):
        (tmp_path / "imgs" / f"xmlab{index}").mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "imgs" / f"xmlab{index}" / "source.jpg")
        records += [
            {
                "qid": 2 * index + turn, "img_name": f"xmlab{index}/source.jpg",
                "question": "Is it healthy?", "answer": "yes", "q_lang": "en",
                "answer_type": "CLOSED", "content_type": content, "location": location,
                "modality": modality,
            }
            for turn, content in enumerate(["Abnormality", "Organ"])
        ]  # fmt: skip
    (tmp_path / "test.json").write_text(json.dumps(records), encoding="utf-8")
    samples = list(read_samples("slake", str(tmp_path), split="test"))
    found = score(predicted(samples, "yes")).breakdowns
    shown = {key: [(e["value"], e["n"]) for e in entries] for key, entries in found.items()}
    assert shown == {
        "content_type": [("Abnormality", 2), ("Organ", 2)],
        "location": [("Brain", 2), ("Lung", 2)],
        "modality": [("CT", 2), ("MRI", 2)],
    }
