"""Does a Q-Former that reads the question see more through few query tokens?

    python docs/studies/question_aware.py --seeds 0 1 2 --out table.json

Drawn scenes of three or four small things, questions about one of them, and a visual prefix too
short to carry every answer. Two arms differ in `model.text_branch` alone: same base, same number of
query tokens, steps, data, learning rates and seeds. Everything goes through `qvft.train` and
`qvft.eval`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from qvft.eval import main as evaluate
from qvft.train import main as train

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.drawn import draw, questions, sample_scene

SIZE_PX = 48
TRAIN, TEST = (11, 3000), (2, 300)
"""Seed of the drawing and scenes of each split."""
THINGS = 3
"""A scene has as many things at least; four is the most that is drawn."""
ABOUT_ALL = ("How many", "Is there any", "Is anything")
"""What questions begin with that no single thing answers; they are left out."""
ARMS = {"blind": [], "aware": ["model.text_branch=fresh"]}
QUERY_TOKENS = 2
RATE = 1.0e-3


def write_split(folder: Path, name: str, seed: int, count: int) -> Path:
    """A split as custom JSONL with PNG images: all questions about one thing of each scene.

    An item's meta says how many `things` its scene has.
    """
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    scenes = filter(
        lambda scene: len(scene.things) >= THINGS,
        (sample_scene(seed, index) for index in itertools.count()),
    )
    with path.open("w", encoding="utf-8") as stream:
        for index, scene in enumerate(itertools.islice(scenes, count)):
            image = f"{name}/{index}.png"
            draw(scene, SIZE_PX).save(folder / image)
            meta = {"things": str(len(scene.things))}
            for question, answer in questions(scene):
                if question.startswith(ABOUT_ALL):
                    continue
                row = {"image": image, "question": question, "answer": answer, "meta": meta}
                stream.write(json.dumps(row) + "\n")
    return path


def write_recipe(folder: Path, *, queries: int, steps: int) -> Path:
    """The recipe that both arms have in common, as JSON, which is YAML too."""
    parts = ("qformer", "query_tokens", "language_projection")
    recipe = {
        "name": "question_aware_study",
        "model": {"id": "qvft/tiny-blip2", "query_tokens": queries},
        "data": {
            "train": {"format": "jsonl", "path": str(write_split(folder, "train", *TRAIN))},
            "eval": {"format": "jsonl", "path": str(write_split(folder, "test", *TEST))},
            "num_workers": 0,
            "cache_images": True,
        },
        "trainable": {"decoder": "frozen"},
        "train": {
            "max_steps": steps,
            "per_device_train_batch_size": 48,
            "texts_per_image": 4,
            "learning_rate": dict.fromkeys(parts, RATE),
            "warmup_steps": 0.1,
            "logging_steps": 50,
        },
        "eval": {
            "batch_size": 256,
            "blind": False,
            "report_images": 0,
            "answer": {"max_new_tokens": 6},
        },
        "run": {"threads": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    return path


def run_arm(recipe: Path, folder: Path, seed: int, arm: str) -> dict[str, Any]:
    """Trains and evaluates an arm, the aware one against the blind one; returns the report.

    An arm whose report stands is not repeated, so that a study that was cut short goes on.
    """
    run = folder / f"{arm}-{seed}"
    report = run / "eval" / "test" / "report.json"
    if not report.is_file():
        against = ["--against", str(folder / f"blind-{seed}" / "eval" / "test")]
        given = [str(recipe), f"run.dir={run}", f"run.seed={seed}", *ARMS[arm]]
        asked_for = [str(run), "--out", str(report.parent), *(against if arm == "aware" else [])]
        if train(given) or evaluate(asked_for):
            raise SystemExit(f"{run} failed")
    return json.loads(report.read_text(encoding="utf-8"))


def seed_row(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the table says of a seed: both arms and their paired difference, in percent."""
    paired = reports["aware"]["against"]["metrics"]["exact_match"]
    row = {key: paired[key] for key in ("n", "difference", "interval")}
    for arm, report in reports.items():
        row[arm] = {
            "exact_match": report["metrics"]["exact_match"],
            "interval": report["intervals"]["exact_match"],
            "most_frequent_answer": report["baselines"]["most_frequent_answer"]["exact_match"],
            "by_things": report["breakdowns"]["things"],
        }
    return row


def main() -> int:
    """Runs both arms for every seed and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--queries", type=int, default=QUERY_TOKENS, help="query tokens kept")
    parser.add_argument("--work", type=Path, default=Path("runs/question_aware_study"))
    parser.add_argument("--out", type=Path, default=Path("question_aware.json"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(given.work, queries=given.queries, steps=given.steps)
    rows = []
    for seed in given.seeds:
        reports = {arm: run_arm(recipe, given.work, seed, arm) for arm in ARMS}
        rows.append({"seed": seed, **seed_row(reports)})
    table = {
        "settings": {"steps": given.steps, "queries": given.queries, "train": TRAIN, "test": TEST},
        "mean": {
            **{arm: statistics.mean(row[arm]["exact_match"] for row in rows) for arm in ARMS},
            "difference": statistics.mean(row["difference"] for row in rows),
        },
        "seeds": rows,
    }
    given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
