"""Writes a checkpoint of this version for the regression set: a minute on one core.

python tests/regression/write.py tests/regression/NAME
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from measuring import row_losses, texts

from qvft.json_files import write_json
from qvft.setup.model import base_model, base_of, trained_model
from qvft.setup.run_recipe import run_recipe
from qvft.train import main as train

# Prompts that the bundled model has never seen, so that base and checkpoint say different things.
RECIPE = """
name: regression
model: {id: qvft/tiny-blip2}
data:
  train: {format: drawn, path: "seed=11,count=64"}
  eval: {format: drawn, path: "seed=12,count=3", name: drawn-test}
  prompt: {caption: "seen:", question: "Q {question} A"}
  num_workers: 0
trainable: {qformer: frozen, lora: {r: 1, lora_alpha: 2}}
train:
  max_steps: 60
  per_device_train_batch_size: 16
  learning_rate: {query_tokens: 1.0e-3, language_projection: 1.0e-3, adapters: 5.0e-3}
eval: {batch_size: 8, blind: false, report_images: 0}
run: {threads: 1}
"""


def main(folder: Path) -> None:
    """Trains, keeps what the run is loaded from, and notes what it says."""
    folder = folder.absolute()
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)  # the lock names the run folder; no path of this machine is to stand there
        Path("recipe.yaml").write_text(RECIPE)
        run = Path("runs/regression")
        assert train(["recipe.yaml"]) == 0
        recipe = run_recipe(run, [])
        base = row_losses(base_model(recipe, base_of(recipe)), recipe)
        trained = row_losses(trained_model(run, recipe), recipe)
        expected = {"row_losses": trained, "base_row_losses": base, "texts": texts(run)}
        write_json(folder / "expected.json", expected)
        shutil.copy(run / "recipe.lock.yaml", folder)
        shutil.copytree(run / "adapter", folder / "adapter")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
