"""Does it cost quality that texts of an image share a row, and its features are cached?

    python docs/studies/sharing.py FOLDER [--seeds 0 1 2] [--out sharing.json]

The quickstart's recipe on its handwritten digits, as many texts seen and steps taken, with the
same seeds and evaluated alike. `separate`: the texts of an image spread over the batches, one a
row, padded, the ViT live. `packed`: the same texts in the same batches, packed, features cached.
`pairs` and `shared`: two, and all four, texts of an image together, everything shared, so that a
batch has a half and a quarter of the images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from qvft.eval import main as evaluate
from qvft.train import main as train

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.digits import write_digits

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart_digits.yaml"
ARMS = {
    "separate": ["train.texts_per_image=1", "train.packing=false", "data.features=off"],
    "packed": ["train.texts_per_image=1"],
    "pairs": ["train.texts_per_image=2"],
    "shared": ["train.texts_per_image=4"],
}
METRICS = ("open_exact_match", "closed_accuracy", "caption_exact_match", "CIDEr")


def run_arm(folder: Path, arm: str, seed: int, epochs: float) -> dict[str, Any]:
    """Trains and evaluates; returns the report. An arm whose report stands is not repeated."""
    run = folder / f"{arm}-{seed}"
    report = run / "eval" / "digits-test" / "report.json"
    if not report.is_file():
        given = [
            str(RECIPE),
            f"data.train.path={folder / 'digits' / 'train.jsonl'}",
            f"data.eval.path={folder / 'digits' / 'test.jsonl'}",
            f"run.dir={run}",
            f"run.seed={seed}",
            f"train.epochs={epochs}",
            "run.threads=1",
            *ARMS[arm],
        ]
        if train(given) or evaluate([str(run), "eval.blind=false", "eval.report_images=0"]):
            raise SystemExit(f"{run} failed")
    return json.loads(report.read_text(encoding="utf-8"))


def main() -> int:
    """Runs every arm for every seed and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--out", type=Path, default=Path("sharing.json"))
    given = parser.parse_args()
    folder = given.folder.resolve()
    if not (folder / "digits").exists():
        write_digits(folder / "digits")
    found: dict[str, Any] = {}
    for seed in given.seeds:
        for arm in ARMS:
            report = run_arm(folder, arm, seed, given.epochs)
            for metric in METRICS:
                value = [report["metrics"][metric], report["intervals"].get(metric)]
                found.setdefault(metric, {}).setdefault(arm, {})[seed] = value
    for arms in found.values():
        for arm in ARMS:
            arms[f"{arm}_mean"] = statistics.mean(value for value, _ in arms[arm].values())
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
