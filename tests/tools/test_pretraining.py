"""The pretraining of the bundled model, shortened: both phases train, and the run is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qvft.json_files import complete_lines
from qvft.recipe.load import load_recipe
from qvft.weights.merge import merge_run
from tools.tiny_blip2.__main__ import RECIPE, main

FEW = """phases=[
  {name: vision,
   train: {preflight: false, max_steps: 2, per_device_train_batch_size: 4,
           learning_rate: {vision: 1.5e-3}},
   trainable: {vision: full, qformer: frozen, query_tokens: frozen, language_projection: frozen,
          decoder: frozen}},
  {name: language, train: {max_steps: 2, per_device_train_batch_size: 4}}]"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretraining") / "tiny"
    limits = ["data.train.limit=8", "data.eval.limit=2", "train.logging_steps=1"]
    assert main([str(folder), *limits, FEW]) == 0
    return folder


def test_the_recipe_is_read() -> None:
    assert [phase.name for phase in load_recipe(RECIPE).phases] == ["vision", "language"]


def test_both_phases_train(out: Path) -> None:
    rows = [row for row in complete_lines(out / "run" / "metrics.jsonl") if "loss" in row]
    assert [row["phase"] for row in rows] == ["vision", "vision", "language", "language"]


def test_the_merged_run_is_a_model_with_a_trained_vit_and_no_heads(
    out: Path, tmp_path: Path
) -> None:
    merge_run(out / "run", tmp_path / "merged")
    before = load_file(out / "base" / "model.safetensors")
    after = load_file(tmp_path / "merged" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {key for key, weight in before.items() if not torch.equal(weight, after[key])}
    assert any(key.startswith("vision_model.") for key in moved)
    assert any(key.startswith("language_model.") for key in moved)
