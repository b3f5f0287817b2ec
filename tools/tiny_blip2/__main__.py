"""Pretrains `qvft/tiny-blip2` from nothing: `python -m tools.tiny_blip2 OUT [key.path=value ...]`.

Writes OUT/base (geometry, tokenizer, fresh weights), OUT/scenes (50,000 drawn scenes as JSONL) and
OUT/run, the run of pretrain.yaml, which `qvft.eval` and `qvft.merge` take.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from qvft.data.rows import Row, evaluation_rows
from qvft.files import given_path, new_folder
from qvft.log import exit_status
from qvft.models.base_checkpoint import TINY_ID, find_checkpoint
from qvft.models.load import load_processor
from qvft.recipe.load import load_recipe
from qvft.recipe.phases import PhasePlan
from qvft.setup.data import Split
from qvft.training.objectives.build import Collate
from qvft.training.phases import run_phases
from qvft.training.prepare_training import prepare_training
from qvft.training.run_folder import check_folder, claimed_folder
from qvft.training.training_run import TrainingRun
from tools.tiny_blip2.geometry import init_tiny
from tools.tiny_blip2.scene_format import write_scenes
from tools.tiny_blip2.scene_objective import SceneCollator, SceneObjective

RECIPE = Path(__file__).with_name("pretrain.yaml")
SCENES = {"train": "seed=1,count={},size=48", "eval": "seed=2,count={},size=48"}
COUNTS = {"train": 50_000, "eval": 1_000}
VISION = "vision"
"""The phase of the recipe in which the ViT learns under `SceneHeads`."""


class Pretraining(TrainingRun):
    """A training setup whose phase `VISION` has another objective, and one row per image."""

    def rows(self, plan: PhasePlan, split: Split | None, *, training: bool) -> list[Row]:
        if split is None or plan.phase.name != VISION:
            return super().rows(plan, split, training=training)
        return evaluation_rows(split.samples, texts="captions")

    def objective(self, plan: PhasePlan, rows: list[Row]) -> tuple[nn.Module, Collate]:
        if plan.phase.name != VISION:
            return super().objective(plan, rows)
        return SceneObjective(self.loaded.model), SceneCollator(self.loaded.collator)


def write_base(folder: Path, *, seed: int) -> None:
    """Writes a model folder: fresh weights, and the bundled model's tokenizer.

    Raises:
        DataError: `folder` exists.
    """
    with new_folder(folder) as out:
        init_tiny(seed).save_pretrained(out)
        load_processor(find_checkpoint(TINY_ID)).save_pretrained(out)


def pretrain(out: Path, overrides: Sequence[str]) -> None:
    """Writes what is not there yet, and trains; a run that was stopped goes on."""
    paths = {which: out / "scenes" / f"{which}.jsonl" for which in SCENES}
    places = [f"model.id={out / 'base'}", f"run.dir={out / 'run'}"]
    places += [f"data.{which}.path={path}" for which, path in paths.items()]
    recipe = load_recipe(RECIPE, [*places, *overrides])
    if not (out / "base").is_dir():
        write_base(out / "base", seed=recipe.run.seed)
    for which, path in paths.items():
        if not path.is_file():
            count = getattr(recipe.data, which).limit or COUNTS[which]
            write_scenes(SCENES[which].format(count), path)
    check_folder(recipe)
    plain = prepare_training(recipe)
    setup = Pretraining(**{one.name: getattr(plain, one.name) for one in dataclasses.fields(plain)})
    with claimed_folder(recipe):
        run_phases(Path(recipe.run_dir), setup)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pretrains; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools.tiny_blip2", description=__doc__)
    parser.add_argument("out", type=given_path)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    given = parser.parse_args(arguments)
    return exit_status(lambda: pretrain(given.out, given.overrides))


if __name__ == "__main__":
    sys.exit(main())
