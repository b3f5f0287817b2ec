"""Writes a run with alignment heads for the regression set: a minute on one core.

python tests/regression/write_aligned.py tests/regression/aligned/NAME
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from measuring import Scores, alignment, losses_of_step, recalls, row_losses, texts
from small_base import write_small_base

from qvft.json_files import write_json
from qvft.setup.model import base_model, base_of, trained_model
from qvft.setup.run_recipe import run_recipe
from qvft.train import main as train

# A checkpoint lies three steps before the end, at a learning rate that still moves weights.
RECIPE = """
name: aligned
model: {id: base}
data:
  train: {format: drawn, path: "seed=11,count=64"}
  eval: {format: drawn, path: "seed=12,count=4", name: drawn-test, texts: captions}
  num_workers: 0
trainable: {lora: {r: 4, lora_alpha: 32}}
objectives: {itc: 1.0, itm: 1.0, itg: 0.3}
train:
  max_steps: 120
  save_steps: 117
  per_device_train_batch_size: 16
  logging_steps: 3
  lr_scheduler_type: constant
  learning_rate:
    {qformer: 5.0e-3, query_tokens: 5.0e-3, language_projection: 5.0e-3, adapters: 1.0e-2}
eval: {batch_size: 8, blind: false, report_images: 0, rerank: 3, caption: {max_new_tokens: 6}}
run: {threads: 1}
"""
LEAST_MARGIN = 1e-4
"""Between scores that are ranked: a hundred times what sums in another order move."""


def main(folder: Path) -> None:
    """Trains, keeps what the run is loaded from and goes on from, and notes what it says."""
    folder = folder.absolute()
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)  # the lock names base and run folder; no path of this machine stands there
        write_small_base(Path("base"))
        Path("recipe.yaml").write_text(RECIPE)
        run = Path("runs/aligned")
        assert train(["recipe.yaml"]) == 0
        recipe = run_recipe(run, [])
        scores = alignment(run, recipe)
        require_apart(scores)
        expected = {
            "row_losses": row_losses(trained_model(run, recipe), recipe),
            "base_row_losses": row_losses(base_model(recipe, base_of(recipe)), recipe),
            "texts": texts(run),
            "recalls": recalls(run),
            "scores": scores,
            "last_losses": losses_of_step(run, 120),
        }
        write_json(folder / "expected.json", expected)
        shutil.copytree("base", folder / "base")
        for kept in ("recipe.lock.yaml", "metrics.jsonl"):
            shutil.copy(run / kept, folder)
        for kept in ("adapter", "checkpoints/0/checkpoint-117"):
            shutil.copytree(run / kept, folder / kept)


def require_apart(scores: Scores) -> None:
    """Checks that no ranking hangs on the last digits."""
    for name, rows in scores.items():
        for line in (*rows, *zip(*rows, strict=True)):
            ranked = sorted(line)
            gaps = [b - a for a, b in zip(ranked, ranked[1:], strict=False)]
            assert min(gaps) > LEAST_MARGIN, f"{name}: {min(gaps)}; take other evaluation data"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
