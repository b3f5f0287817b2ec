"""The model card says what is known, and nothing where nothing is."""

from __future__ import annotations

import json
from pathlib import Path

from qvft.weights.card import CardFacts, model_card, peft_card

FACTS = CardFacts(
    name="scans",
    folder="merged",
    base_id="base/model",
    base_revision="abc",
    model_class="Blip2ForConditionalGeneration",
    dtype="bfloat16",
    data=["scans-train"],
    trained=["qformer"],
    caption="",
    question="Question: {question} Answer:",
    recipe_sha256="0123456789abcdef",
    quantized="nf4",
    qvft_version="0.1.0",
)


def test_figures_of_reports_are_in_the_card(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "scans-test"
    folder.mkdir(parents=True)
    report = {"n": 12, "metrics": {"exact_match": 0.25, "closed_exact_match": 2 / 3}}
    (folder / "report.json").write_text(json.dumps(report))
    card = model_card(FACTS, tmp_path)
    assert "**scans-test** (n = 12)" in card
    assert "| exact_match | 0.25 |" in card
    assert "| closed_exact_match | 0.6667 |" in card


def test_a_card_without_reports_says_so_and_a_broken_one_does_not_stop_it(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "x"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{")
    card = model_card(FACTS, tmp_path)
    assert "Nothing was measured" in card
    assert "base/model (revision abc), fine-tuned on scans-train with qvft" in card
    assert "quantised (nf4)" in card


def test_the_card_of_an_adapter_names_its_base() -> None:
    assert 'from_pretrained("base/model"' in peft_card("base/model", "scans")
