"""A run trained in phases, evaluated: its report says what each phase was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qvft.eval import main as evaluate
from qvft.evaluation.report.trained_phases import training_facts
from qvft.setup.resolve_model import resolve_model
from qvft.train import main as train
from tools.tiny_blip2.geometry import tiny_config

PHASES = """[
  {name: reading,
   trainable: {vision: full, qformer: frozen, query_tokens: frozen, language_projection: frozen},
   train: {max_steps: 3, learning_rate: {vision: 1.0e-4}}},
  {name: talking, trainable: {vision: frozen},
   train: {max_steps: -1, epochs: 0.5, gradient_accumulation_steps: 2}}]"""
DRAWN = ["data.train={format: drawn, path: 'seed=1,count=24'}", "train.save_steps=null"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "phased"
    overrides = [*DRAWN, "trainable.decoder=frozen", f"phases={PHASES}"]
    assert train([str(recipe_file), f"run.dir={folder}", *overrides]) == 0
    return folder


def test_the_report_of_a_run_has_its_phases(run: Path) -> None:
    assert evaluate([str(run), "data.eval.limit=1", "eval.blind=false"]) == 0
    folder = run / "eval" / "shapes-test"
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    reading, talking = content["phases"]
    blocks = tiny_config().text_config.num_hidden_layers
    assert (reading["name"], talking["name"]) == ("reading", "talking")
    assert (reading["objectives"], talking["objectives"]) == ({"lm": 1.0}, {"lm": 1.0})
    assert reading["learning_rates"] == {"vision": 1e-4}
    assert set(talking["learning_rates"]) == {"qformer", "query_tokens", "language_projection"}
    for part in (reading, talking):
        assert (part["decoder_blocks"], part["decoder_blocks_trained"]) == (blocks, 0)
        assert (part["batch_size"], part["decoder_frozen"]) == (8, 0.0)
    assert (reading["max_steps"], reading["epochs"], reading["accumulation"]) == (3, None, 1)
    assert (talking["max_steps"], talking["epochs"], talking["accumulation"]) == (None, 0.5, 2)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Phases of training</h2>" in page and 'class="phase"' in page


def test_steps_and_losses_are_those_that_were_logged(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    facts = training_facts(resolve_model(str(run)))
    for part in facts["phases"]:
        losses = [row["loss"] for row in lines if row["phase"] == part.name and "loss" in row]
        # Logged at every step.
        assert part.steps == len(losses) > 0 and part.loss == losses[-1]
        assert [p.loss for p in facts["loss_curve"] if p.phase == part.name] == losses
    assert facts["phases"][0].steps == 3


def test_counts_are_those_of_the_phases_frozen_and_trained(run: Path) -> None:
    reading, talking = training_facts(resolve_model(str(run)))["phases"]
    trained = {part.component for part in reading.components if part.trained}
    assert trained == {"vision"}
    for part in reading.components:
        assert part.trained in (0, part.weights) and part.weights > 0
    trained = {part.component for part in talking.components if part.trained}
    assert trained == {"qformer", "query_tokens", "language_projection"}


def test_a_run_without_phases_has_one_and_its_adapters_are_called_lora(tiny_run: Path) -> None:
    (only,) = training_facts(resolve_model(str(tiny_run)))["phases"]
    assert (only.name, only.max_steps, only.steps) == ("train", 6, 6)
    adapters = only.components[-1]
    assert (adapters.component, adapters.title) == ("adapters", "LoRA")
    assert adapters.trained == adapters.weights > 0 == only.decoder_blocks_trained


def test_lines_of_an_earlier_attempt_with_other_phases_are_left_out(
    run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    with (copy / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"phase": "given_up", "step": 9, "loss": 1.0}) + "\n")
    assert training_facts(resolve_model(str(copy))) == training_facts(resolve_model(str(run)))


def test_a_run_whose_log_is_gone_still_has_its_phases(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "metrics.jsonl").unlink()
    facts = training_facts(resolve_model(str(copy)))
    assert facts["loss_curve"] == []
    assert [(part.steps, part.loss) for part in facts["phases"]] == [(None, None)] * 2


def test_a_model_that_is_no_run_has_none(tiny_folder: Path) -> None:
    assert training_facts(resolve_model(str(tiny_folder))) == {}
