"""`qvft check` and the feature cache's pass over 10^2 to 10^5 images: seconds, CPU, memory.

    python docs/studies/many_images.py FOLDER 100 1000 10000 [--out many_images.json]

Writes JPEGs of 500 x 375 pixels into FOLDER, each made of parts of scikit-learn's two photographs
with tones and noise of its own, and a recipe with the bundled tiny model. For each number of images
`qvft check` and the cache pass, as training begins it, run in processes of their own. With
`--interrupt` a second cache pass is killed on its way and started again. 100,000 images take 4 GB,
and their features 0.9 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qvft.benchmark.commands import run_command
from qvft.cpu_threads import cpu_cores

SIZE = (500, 375)
PASS = """
import sys
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.setup.feature_cache import with_features
from qvft.setup.model import base_model, base_of
recipe = load_recipe(sys.argv[1], [])
samples = read_split(recipe, "train").samples
with_features(base_model(recipe, base_of(recipe)), recipe, samples)
"""


def photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_image

    return [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]


def drawn(photos: list[Image.Image], noise: Image.Image, number: int) -> Image.Image:
    """An image that depends on its number alone."""
    random = np.random.default_rng([0, number])
    parts = []
    for _ in range(2):
        photo = photos[random.integers(len(photos))]
        width = int(random.integers(100, 300))
        height = width * SIZE[1] // SIZE[0]
        left = int(random.integers(photo.width - width))
        top = int(random.integers(photo.height - height))
        part = photo.resize(SIZE, box=(left, top, left + width, top + height))
        parts.append(part.transpose(Image.Transpose(int(random.integers(4)))).resize(SIZE))
    levels = np.arange(256) / 255
    tones = [np.rint(255 * levels ** random.uniform(0.5, 2)) for _ in range(3)]
    mixed = Image.blend(*parts, float(random.uniform(0.2, 0.8)))
    toned = mixed.point([int(value) for tone in tones for value in tone])
    left, top = (int(place) for place in random.integers(0, 200, 2))
    grain = noise.crop((left, top, left + SIZE[0], top + SIZE[1]))
    return Image.blend(toned, grain, 0.08)


def write_images(folder: Path, numbers: range) -> None:
    photos = photographs()
    pixels = np.random.default_rng(1).integers(0, 256, (600, 720, 3), dtype=np.uint8)
    noise = Image.fromarray(pixels)
    for number in numbers:
        path = folder / f"{number}.jpg"
        if not path.exists():
            drawn(photos, noise, number).save(path, quality=85)


def write_data(folder: Path, count: int) -> Path:
    """The images that are not there yet, texts and recipe; the path of the recipe."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    blocks = [range(start, min(start + 500, count)) for start in range(0, count, 500)]
    with Pool(cpu_cores()) as pool:
        pool.map(partial(write_images, images), blocks, chunksize=1)
    with (folder / f"{count}.jsonl").open("w") as file:
        for number in range(count):
            asked = {"question": "Which picture is it?", "answers": [str(number)]}
            row = {
                "image": f"images/{number}.jpg",
                "captions": [f"picture {number} of a roof or a flower"],
                "questions": [asked],
            }
            file.write(json.dumps(row) + "\n")
    recipe = {
        "name": f"many_{count}",
        "run": {"threads": 1},
        "model": {"id": "qvft/tiny-blip2"},
        "data": {"train": {"format": "jsonl", "path": str(folder / f"{count}.jsonl")}},
        "trainable": {"decoder": "lora"},
    }
    path = folder / f"{count}.yaml"
    path.write_text(json.dumps(recipe))
    return path


def measured(command: list[str], log: Path, cache: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory of a command; its output goes to a file."""
    seconds, cpu_seconds, peak = run_command(command, os.environ | {"QVFT_CACHE": str(cache)}, log)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "largest_process_mb": round(peak / 1024**2),
    }


def interrupted(command: list[str], log: Path, cache: Path) -> dict[str, Any]:
    """A cache pass that is killed once some shards are there, and what the next one takes."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"QVFT_CACHE": str(cache)},
        )
        while process.poll() is None and len(list(cache.glob("*/*.safetensors"))) < 2:
            time.sleep(0.05)
        process.kill()
        process.wait()
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.safetensors")}
    again = measured(command, log, cache)
    same = all(path.stat().st_mtime_ns >= before for path, before in kept.items())
    return {"shards_kept": len(kept), "still_there": same, **again}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("many_images.json"))
    parser.add_argument("--interrupt", action="store_true")
    given = parser.parse_args()
    folder = given.folder.resolve()
    table: list[dict[str, Any]] = []
    for count in given.counts:
        recipe, cache = write_data(folder, count), folder / f"cache_{count}"
        check = [sys.executable, "-m", "qvft", "check", str(recipe), f"run.dir={folder / 'run'}"]
        fill = [sys.executable, "-c", PASS, str(recipe)]
        shutil.rmtree(cache, ignore_errors=True)
        row: dict[str, Any] = {"images": count}
        row["check"] = measured(check, folder / f"check_{count}.log", cache)
        row["cache"] = measured(fill, folder / f"cache_{count}.log", cache)
        row["warm"] = measured(fill, folder / f"warm_{count}.log", cache)
        if given.interrupt:
            shutil.rmtree(cache)
            row["interrupted"] = interrupted(fill, folder / f"again_{count}.log", cache)
        shutil.rmtree(cache)
        table.append(row)
        given.out.write_text(json.dumps(table, indent=2) + "\n")
        print(json.dumps(row), flush=True)
    print(
        "\n| images | what | seconds | CPU seconds | largest process, MB |\n|---|---|---|---|---|"
    )
    for row in table:
        for what in row.keys() - {"images"}:
            one = row[what]
            print(
                f"| {row['images']:,} | {what} | {one['seconds']} | {one['cpu_seconds']} "
                f"| {one['largest_process_mb']} |"
            )


if __name__ == "__main__":
    main()
