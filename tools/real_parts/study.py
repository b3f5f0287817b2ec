"""Trains and evaluates the model from pretrained parts on VQA-RAD, in several arms.

    python -m tools.real_parts.study PARTS VQA_RAD [key.path=value ...] [--arms bridge lora]

PARTS is what `python -m tools.real_parts` wrote, VQA_RAD the data's folder. Everything goes through
`qvft train` and `qvft eval`; an arm whose report exists is not repeated. Runs and table.md go to
PARTS/study. Overrides of `train`, `model` and `run` hold for every arm.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qvft.eval import main as evaluate
from qvft.files import given_path, write_text
from qvft.train import main as train

RECIPE = Path(__file__).with_name("vqa_rad.yaml")
ARMS: dict[str, list[str]] = {
    "bridge": ["trainable.decoder=frozen"],
    "lora": [],
    "question": ["model.text_branch=PARTS/text"],
    "vision": ["phases.1.trainable={vision: full}"],
    "vision_lora": ["phases.1.trainable={vision: lora}"],
}
"""Overrides per arm: the decoder stays frozen; LoRA on it (the recipe); the Q-Former reads the
question; LoRA and the ViT trained in full; LoRA on the ViT too."""
SCORES = {"closed": "closed_accuracy", "open": "open_exact_match", "all": "accuracy"}
COLUMNS = ("tuned", "untuned", "most frequent answer", "blind")


def overrides(parts: Path, data: Path, arm: str, seed: int, run: Path) -> list[str]:
    """The recipe's overrides for one run."""
    return [
        f"model.id={parts / 'model'}",
        f"data.train.path={data}",
        f"data.eval.path={data}",
        f"run.dir={run}",
        f"run.seed={seed}",
        *(one.replace("PARTS", str(parts)) for one in ARMS[arm]),
    ]


def run_arm(parts: Path, data: Path, arm: str, seed: int, further: Sequence[str]) -> dict[str, Any]:
    """Trains and evaluates an arm; returns its report."""
    run = parts / "study" / f"{arm}-{seed}"
    report = run / "report" / "report.json"
    if not report.is_file():
        given = [*overrides(parts, data, arm, seed, run), *further]
        if train([str(RECIPE), "train.resume=auto", *given]):
            raise SystemExit(f"{run}: training failed")
        if evaluate([str(run), "--out", str(report.parent)]):
            raise SystemExit(f"{run}: evaluation failed")
    return json.loads(report.read_text(encoding="utf-8"))


def untuned(parts: Path, data: Path, further: Sequence[str]) -> dict[str, Any]:
    """Report of the model before training."""
    out = parts / "study" / "untuned"
    if not (out / "report.json").is_file():
        data_keys = [f"data.{split}.path={data}" for split in ("train", "eval")]
        kept = [
            one for one in further if one.startswith(("model.", "data.", "eval.", "run.threads"))
        ]
        model = str(parts / "model")
        asked = [model, "--recipe", str(RECIPE), "--out", str(out), f"model.id={model}"]
        if evaluate([*asked, *data_keys, *kept]):
            raise SystemExit("evaluation of the untuned model failed")
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def rows(name: str, report: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Table rows of an arm: each score beside the three baselines, in percent."""
    lines = []
    for kind, metric in SCORES.items():
        if metric not in report["intervals"]:
            continue
        low, high = report["intervals"][metric]
        others = [base["metrics"][metric]]
        for baseline in ("most_frequent_answer", "blind"):
            others.append(report["baselines"][baseline][metric])
        cells = [f"{report['metrics'][metric]:.1f} ({low:.1f} to {high:.1f})"]
        cells += [f"{value:.1f}" for value in others]
        lines.append(f"| {name} | {kind} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the arms and writes the table."""
    parser = argparse.ArgumentParser(prog="tools.real_parts.study", description=__doc__)
    parser.add_argument("parts", type=given_path)
    parser.add_argument("data", type=given_path)
    parser.add_argument("further", nargs="*", metavar="key.path=value")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["bridge", "lora"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_intermixed_args(arguments)
    base = untuned(given.parts, given.data, given.further)
    said: list[str] = []
    table = [f"| arm, seed | questions | {' | '.join(COLUMNS)} |", "|---" * 6 + "|"]
    for arm in given.arms:
        for seed in given.seeds:
            report = run_arm(given.parts, given.data, arm, seed, given.further)
            table += rows(f"{arm}, {seed}", report, base)
            said += [f"- {arm}, {seed}: {sentence}" for sentence in report["verdict"]]
    text = "\n".join([*table, "", *said]) + "\n"
    write_text(given.parts / "study" / "table.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
