"""The model card says what is known, and nothing where nothing is."""

from __future__ import annotations

import json
from pathlib import Path

from qvft.weights.card import model_card, peft_card

FACTS = dict(
    name="scans",
    folder="merged",
    base_id="base/model",
    base_revision="abc",
    model_class="Blip2ForConditionalGeneration",
    dtype="bfloat16",
    data=["scans-train"],
    sources=[],
    trained=["qformer"],
    caption="",
    question="Question: {question} Answer:",
    recipe_sha256="0123456789abcdef",
    quantized="nf4",
    cleaned=False,
    decoder=None,
    chat_prompt=None,
    encoder_decoder=False,
    qvft_version="0.1.0",
)


WEIGHTS = {"adapter_model.safetensors": "aa"}


def write_report(folder: Path, name: str, weights: dict[str, str]) -> None:
    report = {
        "n": 12,
        "metrics": {"exact_match": 25.0, "CIDEr": 0.9386},
        "units": {"exact_match": "percent", "CIDEr": "0..10"},
        "intervals": {"exact_match": [10.0, 40.0]},
        "baselines": {"blind": {"exact_match": 5.0}},
        "model": {"adapter_sha256": weights},
    }
    (folder / "eval" / name).mkdir(parents=True)
    (folder / "eval" / name / "report.json").write_text(json.dumps(report))


def test_figures_of_reports_are_in_both_cards_with_units_and_baselines(tmp_path: Path) -> None:
    write_report(tmp_path, "scans-test", WEIGHTS)
    for card in (
        model_card(tmp_path, adapter_sha256=WEIGHTS, **FACTS),
        peft_card("base/model", "scans", tmp_path, adapter_sha256=WEIGHTS),
    ):
        assert "**scans-test** (n = 12)" in card
        assert "| metric | value | 95 % interval | blind |" in card
        assert "| exact_match | 25.0 % | 10.0 % to 40.0 % | 5.0 % |" in card
        assert "| CIDEr | 0.939 |  |  |" in card


def test_figures_of_other_weights_are_left_out_and_named(tmp_path: Path) -> None:
    write_report(tmp_path, "before", {"adapter_model.safetensors": "bb"})
    card = model_card(tmp_path, adapter_sha256=WEIGHTS, **FACTS)
    assert "25.0 %" not in card
    assert "measured with other weights than these: before." in card


def test_a_card_without_reports_says_so_and_a_broken_one_does_not_stop_it(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "x"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{")
    card = model_card(tmp_path, adapter_sha256=WEIGHTS, **FACTS)
    assert "Nothing was measured" in card
    assert "base/model (revision abc), fine-tuned on scans-train with qvft" in card
    assert "quantised (nf4)" in card


def test_the_card_of_an_adapter_names_its_base(tmp_path: Path) -> None:
    card = peft_card("base/model", "scans", tmp_path, adapter_sha256=WEIGHTS)
    assert 'from_pretrained("base/model"' in card


def test_both_cards_name_the_run_it_started_from(tmp_path: Path) -> None:
    start = {"path": "runs/one", "recipe_sha256": "a1" * 32, "weights_sha256": "b2" * 32}
    for card in (
        model_card(tmp_path, adapter_sha256=WEIGHTS, started_from=start, **FACTS),
        peft_card("base/model", "scans", tmp_path, adapter_sha256=WEIGHTS, started_from=start),
    ):
        sentence = next(line for line in card.splitlines() if "runs/one" in line)
        assert "`a1a1a1a1a1a1`" in sentence and "`b2b2b2b2b2b2`" in sentence
