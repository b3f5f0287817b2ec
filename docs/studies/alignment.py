"""What contrast and matching add to captioning: `python docs/studies/alignment.py DATA FOLDER`.

DATA is `scenes` (drawn) or `digits` (three real handwritten digits). Writes the images,
trains qvft/tiny-blip2 twice for as many steps, evaluates both, the second against the first, and
ranks the captions once more by the language loss, which is all that the run without alignment can
rank by.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import torch
from PIL.Image import Image

from qvft.assembly.model import run_recipe, trained_model
from qvft.data.digits import write_digits
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
  train: {{path: "{folder}/train/data.jsonl", name: train}}
  eval: {{path: "{folder}/eval/data.jsonl", name: heldout}}
  workers: 0
  cache_images: true
tune: {{lora: {{r: 16, alpha: 32, targets: [q_proj, k_proj, v_proj, out_proj, fc1, fc2]}}}}
train:
  max_steps: {steps}
  batch_size: 48
  warmup: 50
  lr:
    qformer: 1.0e-3
    query_tokens: 1.0e-3
    language_projection: 1.0e-3
    adapters: 1.0e-3
    heads: 1.0e-3
eval: {{batch_size: 64, blind: false, caption: {{max_new_tokens: 24}}}}
run: {{threads: 1}}
"""
RUNS = {"lm": [], "both": ["objectives={lm: 1.0, itc: 0.5, itm: 0.5}"]}
TRAIN, HELD_OUT = 8000, 200
STEPS = 1500
DIGIT_PX = 64


Drawn = Iterator[tuple[str, Image]]
"""Captions with their images, without end."""


def scenes(seed: int) -> Drawn:
    """Drawn scenes with the longer of their captions."""
    for sample in read_samples("drawn", f"seed={seed},count=100000,size=48"):
        yield max(sample.captions, key=len), sample.image.open()


def digits(seed: int, folder: Path, split: str) -> Drawn:
    """Three handwritten digits of a split, one a quarter of the image, named in reading order."""
    if not folder.exists():
        write_digits(folder)
    singles = list(read_samples("jsonl", str(folder / f"{split}.jsonl")))
    rng = random.Random(seed)
    while True:
        chosen = rng.choices(singles, k=3)
        square = PIL.Image.new("RGB", (2 * DIGIT_PX, 2 * DIGIT_PX))
        for place, one in enumerate(chosen):
            corner = (DIGIT_PX * (place % 2), DIGIT_PX * (place // 2))
            square.paste(one.image.open().convert("RGB"), corner)
        names = [one.captions[0].split()[-1] for one in chosen]
        yield " and ".join(f"a white digit {name}" for name in names), square


def write_split(folder: Path, drawn: Drawn, count: int, *, unique: bool) -> None:
    """Writes `count` of them as custom JSONL; `unique` passes over captions that are taken."""
    folder.mkdir(parents=True)
    taken: set[str] = set()
    lines: list[str] = []
    for caption, image in drawn:
        if unique and caption in taken:
            continue
        taken.add(caption)
        name = f"{len(lines)}.png"
        image.save(folder / name)
        lines.append(json.dumps({"image": name, "captions": [caption]}))
        if len(lines) == count:
            break
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")


def write_data(data: str, folder: Path) -> None:
    """Training and held-out images and the recipe."""
    if data == "digits":
        train = digits(901, folder / "singles", "train")
        held_out = digits(902, folder / "singles", "test")
    else:
        train, held_out = scenes(901), scenes(902)
    write_split(folder / "train", train, TRAIN, unique=False)
    write_split(folder / "eval", held_out, HELD_OUT, unique=True)
    (folder / "study.yaml").write_text(RECIPE.format(folder=folder, steps=STEPS))


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


def main(data: str, folder: Path) -> None:
    """Prints a line a run and figure."""
    if not (folder / "study.yaml").exists():
        write_data(data, folder)
    samples = list(read_samples("jsonl", str(folder / "eval" / "data.jsonl")))
    for name, overrides in RUNS.items():
        run, recipe = folder / name, str(folder / "study.yaml")
        report = run / "eval" / "heldout"
        if not report.exists():
            train([recipe, f"run.dir={run}", *overrides])
            against = [] if name == "lm" else ["--against", str(folder / "lm/eval/heldout")]
            evaluate([str(run), *against])
        found = json.loads((report / "report.json").read_text())
        for metric in ("CIDEr", *(m for m in found["metrics"] if "_at_1" in m)):
            print(name, metric, found["metrics"][metric], found["intervals"].get(metric))
        if name != "lm":
            print("against lm:", found["against"]["metrics"]["CIDEr"])
        ranked = retrieval_scores(by_language_loss(run, samples).numpy(), range(len(samples)))
        print(name, "by language loss", ranked.image_to_text, ranked.text_to_image)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
