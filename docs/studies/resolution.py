"""What does a higher resolution bring, where the detail asked about is small?

    python docs/studies/resolution.py --seeds 0 1 2 --out table.json

A real handwritten digit (scikit-learn's) somewhere on a dark canvas, and the question which it is.
It is as high as 22 % of the canvas, so at the bundled model's own 48 pixels it covers about one
patch of 12. Arms differ in `model.image_size`, and in whether the ViT is trained. No digit of a
test canvas is on a training canvas. Everything goes through `qvft.train` and `qvft.eval`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qvft.eval import main as evaluate
from qvft.train import main as train

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.digits import GREY_LEVELS, HELD_OUT, NAMES

CANVAS_PX, DIGIT_PX = 144, 32
TRAIN, TEST = 4200, 794
"""Canvases of each split; each digit is on several."""
QUESTION = "Which digit is written?"
SIZES = (48, 96, 144)
ARMS = {
    f"{size}-{vision}": [f"model.image_size={size}", f"trainable.vision={vision}"]
    for vision in ("frozen", "full")
    for size in SIZES
}
RATE = 1.0e-3


def write_split(
    folder: Path, name: str, digits: Sequence[tuple[np.ndarray, int]], count: int, *, seed: int
) -> Path:
    """A split as custom JSONL with PNG images: `count` canvases, each with one question.

    Args:
        digits: pairs of ink (8, 8) in 0..16 and digit, taken in turn.
    """
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    corners = np.random.default_rng(seed).integers(0, CANVAS_PX - DIGIT_PX + 1, size=(count, 2))
    with path.open("w", encoding="utf-8") as stream:
        for index, corner in enumerate(corners.tolist()):
            ink, digit = digits[index % len(digits)]
            grey = Image.fromarray((ink * (255 / GREY_LEVELS)).astype(np.uint8))
            canvas = Image.new("L", (CANVAS_PX, CANVAS_PX))
            canvas.paste(grey.resize((DIGIT_PX, DIGIT_PX), Image.Resampling.BICUBIC), tuple(corner))
            image = f"{name}/{index}.png"
            canvas.save(folder / image)
            row = {"image": image, "question": QUESTION, "answer": NAMES[digit]}
            stream.write(json.dumps(row) + "\n")
    return path


def write_recipe(folder: Path, *, steps: int) -> Path:
    """The recipe that all arms have in common, as JSON, which is YAML too."""
    from sklearn.datasets import load_digits

    found = load_digits()
    digits = [(ink, int(name)) for ink, name in zip(found.images, found.target, strict=True)]
    splits = {
        "train": write_split(folder, "train", digits[HELD_OUT:], TRAIN, seed=0),
        "eval": write_split(folder, "test", digits[:HELD_OUT], TEST, seed=1),
    }
    parts = ("vision", "qformer", "query_tokens", "language_projection", "adapters")
    recipe = {
        "name": "resolution_study",
        "model": {"id": "qvft/tiny-blip2"},
        "data": {
            **{split: {"format": "jsonl", "path": str(path)} for split, path in splits.items()},
            "num_workers": 0,
            "cache_images": True,
        },
        "trainable": {"decoder": "lora", "lora": {"target_modules": "all-linear"}},
        "train": {
            "max_steps": steps,
            "per_device_train_batch_size": 48,
            "learning_rate": dict.fromkeys(parts, RATE),
            "warmup_steps": 0.1,
            "logging_steps": 50,
        },
        "eval": {"batch_size": 200, "report_images": 0, "answer": {"max_new_tokens": 6}},
        "run": {"threads": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    return path


def run_arm(recipe: Path, folder: Path, seed: int, arm: str) -> dict[str, Any]:
    """Trains and evaluates an arm, unless its report stands; returns the report."""
    run = folder / f"{arm}-{seed}"
    report = run / "eval" / "test" / "report.json"
    if not report.is_file():
        given = [str(recipe), f"run.dir={run}", f"run.seed={seed}", *ARMS[arm]]
        if train(given) or evaluate([str(run), "--out", str(report.parent)]):
            raise SystemExit(f"{run} failed")
    return json.loads(report.read_text(encoding="utf-8"))


def main() -> int:
    """Runs every arm for every seed and writes the table: exact match in percent."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--work", type=Path, default=Path("runs/resolution_study"))
    parser.add_argument("--out", type=Path, default=Path("resolution.json"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(given.work, steps=given.steps)
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in given.arms}
    for seed in given.seeds:
        for arm in given.arms:
            report = run_arm(recipe, given.work, seed, arm)
            entry = {
                "seed": seed,
                "exact_match": report["metrics"]["exact_match"],
                "interval": report["intervals"]["exact_match"],
                "blind": report["baselines"]["blind"]["exact_match"],
                "most_frequent_answer": report["baselines"]["most_frequent_answer"]["exact_match"],
            }
            found[arm].append(entry)
            means = {
                name: statistics.mean(one["exact_match"] for one in entries)
                for name, entries in found.items()
                if entries
            }
            table = {"steps": given.steps, "mean": means, "arms": found}
            given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
