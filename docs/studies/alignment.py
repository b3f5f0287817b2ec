"""`python docs/studies/alignment.py FOLDER`: what contrast and matching add, on drawn scenes.

Writes the scenes, trains qvft/tiny-blip2 twice for as many steps, evaluates both, and ranks the
captions once more by the language loss, which is all that the run without alignment can rank by.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from qvft.assembly.model import run_recipe, trained_model
from qvft.data.formats import read_samples
from qvft.data.rows import evaluation_rows
from qvft.data.sample import Sample
from qvft.eval import main as evaluate
from qvft.evaluation.metrics.retrieval import retrieval_scores
from qvft.models.stages import encode_images
from qvft.train import main as train
from qvft.training.losses import language_loss

RECIPE = """
name: study
model: {{id: qvft/tiny-blip2}}
data:
  train: {{path: "{folder}/train/data.jsonl", name: scenes-train}}
  eval: {{path: "{folder}/eval/data.jsonl", name: scenes-heldout}}
  workers: 0
  cache_images: true
tune: {{decoder: frozen}}
train:
  max_steps: 120
  batch_size: 48
  warmup: 20
  lr: {{qformer: 5.0e-4, query_tokens: 5.0e-4, language_projection: 5.0e-4, heads: 1.0e-3}}
eval: {{batch_size: 64, blind: false, caption: {{max_new_tokens: 24}}}}
run: {{threads: 1}}
"""
RUNS = {"lm": [], "both": ["objectives={lm: 1.0, itc: 0.5, itm: 0.5}"]}


def write_scenes(folder: Path, *, seed: int, count: int, unique: bool) -> None:
    """Scenes with the longer of their captions; `unique` passes over captions that are taken."""
    folder.mkdir(parents=True)
    taken: set[str] = set()
    lines: list[str] = []
    for sample in read_samples("drawn", f"seed={seed},count=100000,size=48"):
        caption = max(sample.captions, key=len)
        if unique and caption in taken:
            continue
        taken.add(caption)
        sample.image.open().save(folder / f"{sample.id}.png")
        record = {"id": sample.id, "image": f"{sample.id}.png", "captions": [caption]}
        lines.append(json.dumps(record))
        if len(lines) == count:
            break
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")


@torch.no_grad()
def by_language_loss(run: Path, samples: list[Sample]) -> torch.Tensor:
    """(I, M) minus the mean loss of a token of each caption, given each image."""
    loaded = trained_model(run, run_recipe(run, []))
    rows = evaluation_rows(samples, texts="captions")
    batch = loaded.collator(list(enumerate(rows)))
    images = encode_images(loaded.model, batch["pixel_values"])
    scores = []
    for image in range(len(rows)):
        found = language_loss(
            loaded.model,
            {"input_ids": batch["input_ids"]},
            images=images[image : image + 1],
            image_index=torch.zeros(len(rows), dtype=torch.long),
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
        )
        scores.append(-found["row_loss"])
    return torch.stack(scores)


def main(folder: Path) -> None:
    """Prints a line a run and way of ranking."""
    if not (folder / "study.yaml").exists():
        write_scenes(folder / "train", seed=901, count=3000, unique=False)
        write_scenes(folder / "eval", seed=902, count=200, unique=True)
        (folder / "study.yaml").write_text(RECIPE.format(folder=folder))
    samples = list(read_samples("jsonl", str(folder / "eval" / "data.jsonl")))
    for name, overrides in RUNS.items():
        run, recipe = folder / name, str(folder / "study.yaml")
        train([recipe, f"run.dir={run}", *overrides])
        evaluate([str(run)])
        report = json.loads((run / "eval" / "scenes-heldout" / "report.json").read_text())
        for metric in (
            "CIDEr",
            *(m for m in report["metrics"] if m.removesuffix("_reranked").endswith("_at_1")),
        ):
            print(name, metric, report["metrics"][metric], report["intervals"].get(metric))
        ranked = retrieval_scores(by_language_loss(run, samples).numpy(), range(len(samples)))
        print(name, "by language loss", ranked.image_to_text, ranked.text_to_image)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
