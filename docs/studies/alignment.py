"""What contrast and matching add to captioning.

    python docs/studies/alignment.py digits FOLDER [--seeds 0 1 2] [--out alignment.json]

DATA is `scenes` (drawn) or `digits` (three real handwritten digits an image). First a base is made
that BLIP-2 resembles, one whose Q-Former has read texts: qvft/tiny-blip2, trained with all
objectives on the other data of the two, merged, its text half exported. From there two arms differ
in `objectives` alone. Each arm's captions are scored, and its captions and images are ranked for
each other in two ways: by contrast and matching, where the arm without them has the base's own text
half, and by the language loss, one decoder pass for each pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from alignment_data import base_data, write_data

from qvft.data.formats import read_samples
from qvft.data.rows import evaluation_rows
from qvft.data.sample import Sample
from qvft.eval import main as evaluate
from qvft.evaluation.image_text_retrieval import retrieval_group
from qvft.evaluation.metrics.retrieval import retrieval_scores
from qvft.evaluation.rows import PredictionRow
from qvft.export import main as export
from qvft.merge import main as merge
from qvft.models.forward_stages import encode_images
from qvft.models.supervised_tokens import supervised_tokens
from qvft.setup.alignment_heads import new_branch
from qvft.setup.alignment_model import AlignmentModel, load_alignment_model
from qvft.setup.model import trained_model
from qvft.setup.run_recipe import run_recipe
from qvft.train import main as train
from qvft.training.objectives.language import language_outputs

RATE = 1.0e-3
PARTS = ("qformer", "query_tokens", "language_projection", "adapters", "heads")
BASE_WEIGHTS = {"lm": 1.0, "itc": 0.5, "itm": 0.5}
OTHER = {"digits": "scenes", "scenes": "digits"}
"""What the base of a study has read about."""
TOP = 128
"""Candidates by contrast that matching ranks anew, as `eval.rerank` has it."""


def recipe(
    name: str, model: str, train_data: dict[str, Any], *, steps: int, batch: int
) -> dict[str, Any]:
    """What the base's training and the arms have in common."""
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    return {
        "name": name,
        "model": {"id": model},
        "data": {"train": train_data, "num_workers": 0},
        "trainable": {"lora": {"r": 16, "lora_alpha": 32, "target_modules": targets}},
        "train": {
            "max_steps": steps,
            "per_device_train_batch_size": batch,
            "warmup_steps": 0.05,
            "logging_steps": 25,
            "save_steps": 500,
            "resume": "auto",
            "learning_rate": dict.fromkeys(PARTS, RATE),
        },
        "run": {"threads": 1},
    }


def checked(status: int) -> None:
    """Ends the study where one of its commands failed."""
    if status:
        raise SystemExit(status)


def made_base(folder: Path, data: str, steps: int) -> tuple[Path, Path]:
    """The merged base and its text half, trained on `data`; made unless they are there."""
    merged, retrieval = folder / "base_merged", folder / "base_retrieval"
    run, file = folder / "base", folder / "base.yaml"
    if not merged.exists():
        content = recipe("base", "qvft/tiny-blip2", base_data(data, folder), steps=steps, batch=64)
        content["objectives"] = BASE_WEIGHTS
        file.write_text(json.dumps(content) + "\n", encoding="utf-8")
        checked(train([str(file), f"run.dir={run}"]))
        checked(merge([str(run), str(merged)]))
    if not retrieval.exists():
        checked(export([str(run), str(retrieval), "--to", "retrieval"]))
    return merged, retrieval


def by_heads(aligned: AlignmentModel, samples: list[Sample]) -> dict[str, float]:
    """Recalls at 1 by contrast, and with matching after it."""
    rows = [PredictionRow(s.id, s.id, "caption", None, "", tuple(s.captions)) for s in samples]
    sources = [sample.image for sample in samples]
    found = retrieval_group(aligned, rows, sources, top=TOP, batch_size=64, workers=0)
    at_one = [metric for metric in found.metrics if "_at_10" not in metric.name]
    return {metric.name: metric.value for metric in at_one if "_at_1" in metric.name}


@torch.no_grad()
def by_language_loss(aligned: AlignmentModel, samples: list[Sample]) -> dict[str, float]:
    """Recalls at 1 by minus the mean loss of a token of each caption, given each image."""
    loaded, rows = aligned.loaded, evaluation_rows(samples, texts="captions")
    batch = loaded.collator(list(enumerate(rows)))
    images = encode_images(loaded.model, batch["pixel_values"])
    scores = []
    for image in range(len(rows)):
        tokens = supervised_tokens(
            loaded.model,
            {"input_ids": batch["input_ids"]},
            images=images[image : image + 1],
            image_index=torch.zeros(len(rows), dtype=torch.long),
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
        )
        scores.append(-language_outputs(tokens)["row_loss"])
    ranked = retrieval_scores(torch.stack(scores).numpy(), range(len(samples)))
    return {"image_to_text": ranked.image_to_text[1], "text_to_image": ranked.text_to_image[1]}


def run_arm(folder: Path, name: str, seed: int, objectives: dict[str, Any]) -> dict[str, Any]:
    """Trains, evaluates and ranks; what is there already is not made again."""
    run, out = folder / f"{name}-{seed}", folder / f"{name}-{seed}.json"
    alone = name == "lm"
    if out.is_file():
        return json.loads(out.read_text(encoding="utf-8"))
    given = [str(folder / "study.yaml"), f"run.dir={run}", f"run.seed={seed}"]
    wanted = {"lm": objectives["lm"]} if alone else objectives
    checked(train([*given, f"objectives={json.dumps(wanted)}"]))
    against = [] if alone else ["--against", str(folder / f"lm-{seed}/eval/heldout")]
    checked(evaluate([str(run), *against]))
    report = json.loads((run / "eval/heldout/report.json").read_text(encoding="utf-8"))
    samples = list(read_samples("jsonl", str(folder / "eval" / "data.jsonl")))
    aligned = opened(run, objectives, trained=not alone)
    row: dict[str, Any] = {
        "CIDEr": [report["metrics"]["CIDEr"], *report["intervals"]["CIDEr"]],
        "heads": by_heads(aligned, samples),
        "language_loss": by_language_loss(aligned, samples),
    }
    if not alone:
        row["against_lm"] = report["against"]["metrics"]["CIDEr"]
    out.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return row


def opened(run: Path, objectives: dict[str, Any], *, trained: bool) -> AlignmentModel:
    """A run with its own heads, or with the base's where it trained none."""
    if trained:
        return load_alignment_model(run)
    read = run_recipe(run, [f"objectives={json.dumps(objectives)}"])
    loaded = trained_model(run, read)
    branch = new_branch(read, loaded)
    assert branch is not None
    branch.heads.eval()
    return AlignmentModel(loaded, branch)


def main() -> int:
    """Runs both arms for every seed and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", choices=("digits", "scenes"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--weight", type=float, default=0.1, help="of contrast and of matching")
    parser.add_argument("--base-steps", type=int, default=2000)
    parser.add_argument("--base", type=Path, help="folder of an earlier study, whose base to take")
    parser.add_argument("--out", type=Path, default=Path("alignment.json"))
    given = parser.parse_args()
    folder = given.folder.resolve()
    write_data(given.data, folder)
    merged, retrieval = made_base(
        (given.base or given.folder).resolve(), OTHER[given.data], given.base_steps
    )
    source = {"path": str(folder / "train/data.jsonl"), "name": "train"}
    content = recipe("study", str(merged), source, steps=given.steps, batch=48)
    content["data"]["eval"] = {"path": str(folder / "eval/data.jsonl"), "name": "heldout"}
    content["eval"] = {"batch_size": 64, "blind": False, "caption": {"max_new_tokens": 24}}
    (folder / "study.yaml").write_text(json.dumps(content) + "\n", encoding="utf-8")
    weights = {"lm": 1.0, "itc": given.weight, "itm": given.weight}
    objectives = {**weights, "text_branch": str(retrieval)}
    table: dict[str, dict[int, Any]] = {"lm": {}, f"both-{given.weight}": {}}
    for seed in given.seeds:
        for arm, found in table.items():
            found[seed] = run_arm(folder, arm, seed, objectives)
            print(arm, seed, json.dumps(found[seed]), flush=True)
    for arm, found in table.items():
        print(arm, "mean CIDEr", statistics.mean(row["CIDEr"][0] for row in found.values()))
    given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
