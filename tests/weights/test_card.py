"""The model card says what is known, and nothing where nothing is; its code runs as it stands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from transformers import Blip2Config

from qvft.adapters.manifest import fingerprints
from qvft.inference.vision_language_model import load_model
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.families import FAMILIES
from qvft.recipe.load import parse_recipe
from qvft.weights.card import base_licence, model_card
from qvft.weights.export import export_run
from qvft.weights.merge import merge_run

QUESTION = "Which colour is it?"
WEIGHTS = {"adapter_model.safetensors": "aa"}
HUB_ID = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"


def recipe(**data: object):
    return parse_recipe({"name": "scans", "model": {"id": "base/model"}, "data": data})


def card_of(run_dir: Path, *, adapter: bool = False, start=None, **changes: object) -> str:
    template = SimpleNamespace(written_prompt=lambda kind, question: f"Question: {question}")
    config = Blip2Config()
    base = BaseCheckpoint("base/model", str(run_dir), "abc", config, FAMILIES["blip2"])
    manifest = {"recipe_sha256": "0123456789abcdef", "started_from": start}
    of_merged = dict(
        remote_code=False,
        dtype="bfloat16",
        data=["scans-train"],
        trained=["qformer"],
        decoder=None,
        quantized="nf4",
        qvft_version="0.1.0",
    )
    return model_card(
        changes.pop("recipe", recipe()),
        run_dir,
        base,
        library="peft" if adapter else "transformers",
        folder="merged",
        manifest=manifest,
        adapter_sha256=WEIGHTS,
        template=template,
        **({} if adapter else of_merged),
        **changes,
    )


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
    rows = [
        {"image": f"{n}.png", "question": QUESTION, "prediction": f"p{n}", "references": ["red"]}
        for n in range(9)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "eval" / name / "predictions.jsonl").write_text(lines)


@pytest.mark.parametrize("adapter", [False, True])
def test_figures_of_reports_are_in_both_cards_with_units_and_baselines(
    tmp_path: Path, adapter: bool
) -> None:
    write_report(tmp_path, "scans-test", WEIGHTS)
    card = card_of(tmp_path, adapter=adapter)
    assert "**scans-test** (n = 12)" in card
    assert "| metric | value | 95 % interval | blind |" in card
    assert "| exact_match | 25.0 % | 10.0 % to 40.0 % | 5.0 % |" in card
    assert "| CIDEr | 0.939 |  |  |" in card
    assert f'prompt = "Question: {QUESTION}"' in card
    assert re.findall(r"\| (p\d) \|", card) == ["p0", "p4", "p8"]


def test_figures_of_other_weights_are_left_out_and_named(tmp_path: Path) -> None:
    write_report(tmp_path, "before", {"adapter_model.safetensors": "bb"})
    card = card_of(tmp_path)
    assert "25.0 %" not in card and "p0" not in card
    assert "measured with other weights than these: before." in card


def test_a_card_without_reports_says_so_and_a_broken_one_does_not_stop_it(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "x"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{")
    card = card_of(tmp_path)
    assert "Nothing was measured" in card
    assert "base/model (revision abc), fine-tuned on scans-train with qvft" in card
    assert "quantised (nf4)" in card


@pytest.mark.parametrize("adapter", [False, True])
def test_both_cards_name_the_run_it_started_from(tmp_path: Path, adapter: bool) -> None:
    start = {"path": "runs/one", "recipe_sha256": "a1" * 32, "weights_sha256": "b2" * 32}
    card = card_of(tmp_path, adapter=adapter, start=start)
    sentence = next(line for line in card.splitlines() if "runs/one" in line)
    assert "`a1a1a1a1a1a1`" in sentence and "`b2b2b2b2b2b2`" in sentence
    start["path"] = "/home/somebody/runs/one"
    assert "somebody" not in card_of(tmp_path, adapter=adapter, start=start)


def test_metadata_has_what_the_hub_validates(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: bsd-3-clause\ntags: [x]\n---\n# Base\n")
    write_report(tmp_path, "scans-test", WEIGHTS)
    hub_data = {"train": {"format": "hf", "path": "owner/scans"}}
    content = ModelCard(card_of(tmp_path, recipe=recipe(**hub_data))).data.to_dict()
    assert content["license"] == "bsd-3-clause"
    assert content["library_name"] == "transformers"
    assert content["pipeline_tag"] == "image-text-to-text"
    assert content["base_model"] == "base/model" and re.fullmatch(HUB_ID, content["base_model"])
    assert content["datasets"] == ["owner/scans"]
    (entry,) = content["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "scans"
    assert result["task"]["type"] == "image-text-to-text"
    assert result["dataset"] == {"name": "scans-test", "type": "scans-test"}
    scores = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert scores == {"exact_match": 25.0, "CIDEr": 0.9386}
    assert "10 to 40" in result["metrics"][0]["name"]
    local = recipe(train={"path": "rows.jsonl"})
    assert "datasets" not in ModelCard(card_of(tmp_path, recipe=local)).data.to_dict()


def test_a_base_without_a_licence_is_of_an_unknown_one(tmp_path: Path) -> None:
    assert base_licence(str(tmp_path), None) == {"license": "unknown"}
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: own-1\nlicense_link: LICENSE\n---\nlicense: mit\n"
    )
    expected = {"license": "other", "license_name": "own-1", "license_link": "LICENSE"}
    assert base_licence(str(tmp_path), None) == expected


def test_only_a_question_about_several_images_is_the_example(tmp_path: Path) -> None:
    write_report(tmp_path, "scans-test", WEIGHTS)
    path = tmp_path / "eval" / "scans-test" / "predictions.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert 'prompt = "Question: What is shown?"' in card_of(tmp_path)


def code_of(card: str) -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    return code


@pytest.fixture(scope="module")
def bundled_run(make_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bundled model, evaluated on two questions that are asked of all images."""
    run = make_run(tmp_path_factory.mktemp("runs") / "bundled", model={"id": "qvft/tiny-blip2"})
    write_report(run, "drawn", fingerprints(run / "adapter"))
    return run


@pytest.mark.parametrize("form", ["merged", "peft"])
def test_the_code_of_a_card_runs_as_it_stands_and_answers_as_the_run_does(
    bundled_run: Path, tmp_path: Path, form: str, monkeypatch, capsys
) -> None:
    out = tmp_path / "mine"
    if form == "merged":
        merge_run(bundled_run, out)
    else:
        export_run(bundled_run, out, to="peft")
    monkeypatch.chdir(tmp_path)
    space: dict = {"__name__": "__main__"}
    exec(compile(code_of((out / "README.md").read_text()), "card", "exec"), space)
    said = load_model(str(bundled_run)).answer(space["image"], QUESTION)
    assert said and QUESTION in space["prompt"]
    assert capsys.readouterr().out.splitlines()[-1].strip() == said
    assert ModelCard.load(out / "README.md").data.license == "apache-2.0"
    shutil.rmtree(out)
