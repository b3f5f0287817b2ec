"""Images with one caption each, for the study of alignment: drawn scenes or handwritten digits."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
from PIL.Image import Image

from qvft.data.formats import read_samples

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.digits import write_digits
from tools.tiny_blip2.scene_format import read, write_scenes

TRAIN, HELD_OUT, BASE = 8000, 200, 30_000
DIGIT_PX = 64

Drawn = Iterator[tuple[str, Image]]
"""Captions with their images, without end."""


def write_data(data: str, folder: Path) -> None:
    """Writes `train/data.jsonl` and `eval/data.jsonl` with their images, unless they are there."""
    if (folder / "eval/data.jsonl").is_file():
        return
    if data == "digits":
        train = digits(901, folder / "singles", "train")
        held_out = digits(902, folder / "singles", "test")
    else:
        train, held_out = scenes(901), scenes(902)
    write_split(folder / "train", train, TRAIN, unique=False)
    write_split(folder / "eval", held_out, HELD_OUT, unique=True)


def base_data(data: str, folder: Path) -> dict[str, str]:
    """The section of a recipe with what a base reads; digits are written unless they are there."""
    if data == "scenes":
        path = folder / "base_scenes.jsonl"
        if not path.is_file():
            write_scenes(f"seed=903,count={BASE},size=48", path)
        return {"path": str(path), "texts": "captions"}
    target = folder / "base_data"
    if not (target / "data.jsonl").is_file():
        write_split(target, digits(903, folder / "singles", "train"), BASE, unique=False)
    return {"path": str(target / "data.jsonl"), "texts": "captions"}


def scenes(seed: int) -> Drawn:
    """Drawn scenes with the longer of their captions."""
    for sample in read(f"seed={seed},count=100000,size=48"):
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
    folder.mkdir(parents=True, exist_ok=True)
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
