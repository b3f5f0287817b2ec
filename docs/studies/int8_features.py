"""What features kept in int8 do to the loss, and to the scores of a model trained on them.

    python docs/studies/int8_features.py FOLDER [--seeds 0 1 2] [--epochs 2] [--out int8.json]

The quickstart's recipe on its handwritten digits. The loss: of every text of the test images, the
same weights given exact features and int8 ones, before training and after it. The scores: of runs
that were trained and evaluated on exact features, and on int8 ones, with the same seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from qvft.data.rows import evaluation_rows
from qvft.eval import main as evaluate
from qvft.recipe.load import load_recipe
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_split
from qvft.setup.feature_cache import with_features
from qvft.setup.model import Loaded, base_model, base_of, trained_model
from qvft.train import main as train
from qvft.training.objectives.language import LanguageModelling

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.digits import write_digits

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart_digits.yaml"
ARMS = {"exact": "auto", "int8": "int8"}
METRICS = ("open_exact_match", "closed_accuracy", "caption_exact_match", "CIDEr")
BATCH = 64


def given(folder: Path, arm: str, *further: str) -> list[str]:
    """The recipe's data and the arm's features, as overrides."""
    return [
        f"data.train.path={folder / 'digits' / 'train.jsonl'}",
        f"data.eval.path={folder / 'digits' / 'test.jsonl'}",
        f"data.features_dtype={ARMS[arm]}",
        "run.threads=1",
        *further,
    ]


@torch.no_grad()
def losses(loaded: Loaded, recipe: Recipe) -> dict[str, torch.Tensor]:
    """By text of the test images: its mean loss in nats, its tokens, whether it is exact."""
    split = read_split(recipe, "eval")
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    collator = with_features(loaded, recipe, split.samples).collator
    assert collator.features is not None
    objective = LanguageModelling(loaded.model).eval()
    found: dict[str, list[torch.Tensor]] = {"row_loss": [], "row_count": [], "exact": []}
    for at in range(0, len(rows), BATCH):
        batch = collator(list(enumerate(rows[at : at + BATCH])))
        del batch["row_index"]
        outputs = objective(**batch)
        for name, parts in found.items():
            parts.append(outputs[name])
    return {name: torch.cat(parts) for name, parts in found.items()}


def loss_effect(loaded: Loaded, folder: Path) -> dict[str, float]:
    """Exact features against int8 ones, in the same model."""
    exact, rounded = (losses(loaded, load_recipe(RECIPE, given(folder, arm))) for arm in ARMS)
    moved = (rounded["row_loss"] - exact["row_loss"]).abs()
    tokens = exact["row_count"].double()

    def mean(found: dict[str, torch.Tensor]) -> float:
        return float((found["row_loss"].double() * tokens).sum() / tokens.sum())

    return {
        "texts": len(moved),
        "exact_loss": mean(exact),
        "int8_loss": mean(rounded),
        "mean_abs_difference": float(moved.mean()),
        "max_abs_difference": float(moved.max()),
        "exact_match_changes": int((exact["exact"] != rounded["exact"]).sum()),
    }


def trained(folder: Path, arm: str, seed: int, epochs: float) -> tuple[Path, dict[str, Any]]:
    """The run and report of an arm; one whose report stands is not repeated."""
    run = folder / f"{arm}-{seed}"
    report = run / "eval" / "digits-test" / "report.json"
    if not report.is_file():
        overrides = given(
            folder, arm, f"run.dir={run}", f"run.seed={seed}", f"train.epochs={epochs}"
        )
        if train([str(RECIPE), *overrides]):
            raise SystemExit(f"{run}: training failed")
        if evaluate([str(run), "eval.blind=false", "eval.report_images=0"]):
            raise SystemExit(f"{run}: evaluation failed")
    return run, json.loads(report.read_text(encoding="utf-8"))


def main() -> int:
    """Measures both, and writes after every seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--out", type=Path, default=Path("int8.json"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    if not (folder / "digits").exists():
        write_digits(folder / "digits")
    recipe = load_recipe(RECIPE, given(folder, "exact"))
    found: dict[str, Any] = {
        "loss_before": loss_effect(base_model(recipe, base_of(recipe)), folder),
        "scores": {metric: {arm: {} for arm in ARMS} for metric in METRICS},
    }
    for seed in options.seeds:
        for arm in ARMS:
            run, report = trained(folder, arm, seed, options.epochs)
            for metric in METRICS:
                value = [report["metrics"][metric], report["intervals"].get(metric)]
                found["scores"][metric][arm][seed] = value
            if arm == "exact":
                found.setdefault("loss_after", {})[seed] = loss_effect(
                    trained_model(run, recipe), folder
                )
        for arms in found["scores"].values():
            arms["means"] = {
                arm: statistics.mean(value for value, _ in arms[arm].values()) for arm in ARMS
            }
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
