"""What training and the feature cache cost as the work grows.

    python docs/studies/growth.py FOLDER [--only texts,length,images] [--rounds 3]
        [--out growth.json]

On the model of `scaled_model.py`, plain practice against everything, as `qvft.bench` measures them:
texts per image from 1 to 30, 30 texts per step; texts of about 8 to 256 tokens, five per image, 20
per step. And without a model, for 100 to 100,000 images of BLIP-2's shape: opening the cache,
looking up, memory, and the order of an epoch of five texts per image. What is measured is written
at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scaled_model import SIDE_PX, write_model

from qvft.benchmark.training import bench_training
from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.fill import features_bytes
from qvft.data.features.store import open_store
from qvft.recipe.load import parse_recipe
from qvft.training.batches.sampler import GroupedSampler

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.drawn import draw, sample_scene

WORDS = ("a", "red", "circle", "at", "the", "top", "left", "and", "blue", "square", "near", "it")
TEXTS, LENGTHS, IMAGES = (1, 2, 5, 10, 30), (8, 16, 32, 64, 128, 256), (100, 1_000, 10_000, 100_000)


def measured(folder: Path, *, images: int, texts: int, words: int, rounds: int) -> dict[str, float]:
    """Plain practice against everything on `images` images of `texts` captions of `words` words."""
    lines = []
    for index in range(images):
        name = f"{index}.png"
        if not (folder / name).exists():
            draw(sample_scene(7, index), SIDE_PX).save(folder / name)
        # No two begin alike for long, as captions do not.
        captions = [
            " ".join(WORDS[(place + 3 * text) % len(WORDS)] for place in range(words))
            for text in range(texts)
        ]
        lines.append(json.dumps({"image": name, "captions": captions}))
    data = folder / "data.jsonl"
    data.write_text("\n".join(lines) + "\n")
    recipe = parse_recipe(
        {
            "name": "growth",
            "model": {"id": str(folder / "model")},
            "data": {"train": {"path": str(data)}, "num_workers": 0, "max_text_tokens": 300},
            "train": {"per_device_train_batch_size": images * texts, "texts_per_image": texts},
        }
    )
    found = bench_training(recipe, rounds=rounds, steps=1, ways=("plain", "qvft"))
    plain, ours = found.ways["plain"], found.ways["qvft"]
    return {
        "plain_texts_per_second": plain.texts_per_second,
        "qvft_texts_per_second": ours.texts_per_second,
        "speedup": found.speedup,
        "promised": found.promised,
        "memory_ratio": plain.peak_memory_bytes / max(1, ours.peak_memory_bytes),
        "label_tokens_per_text": found.label_tokens / found.texts,
    }


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took, and what came of it."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def cache_of(folder: Path, count: int) -> dict[str, float]:
    """The cost of a cache of `count` images; its features are holes in files and take no room."""
    spec = FeatureSpec("v", "ab" * 32, {"images": count}, "bfloat16", "bfloat16", 257, 1408)
    place = open_store(folder, spec).folder
    keys = [hashlib.sha256(f"{index}".encode()).digest() for index in range(count)]
    for start in range(0, count, 256):
        inside = keys[start : start + 256]
        end = len(inside) * spec.image_bytes
        header = {
            "__metadata__": {"keys": " ".join(key.hex() for key in inside)},
            "features": {
                "dtype": "BF16",
                "shape": [len(inside), spec.patches, spec.width],
                "data_offsets": [0, end],
            },
        }
        text = json.dumps(header).encode()
        with (place / f"{start:032x}.safetensors").open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + end)
    opening, store = seconds(lambda: open_store(folder, spec))
    looking, found = seconds(lambda: sum(key in store for key in keys))
    assert found == count
    names = [f"{index // 5}" for index in range(5 * count)]
    ordering, order = seconds(lambda: list(GroupedSampler(names, group_size=5, seed=0)))
    assert len(order) == 5 * count
    return {
        "gigabytes_bfloat16": features_bytes(spec, count) / 1e9,
        "open_seconds": opening,
        "lookup_microseconds": looking / count * 1e6,
        "epoch_order_seconds": ordering,
    }


def main() -> int:
    """Measures and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--only", default="texts,length,images")
    parser.add_argument("--rounds", type=int, default=3, help="the median of this many is taken")
    parser.add_argument("--out", type=Path, default=Path("growth.json"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    write_model(given.folder / "model")
    parts: dict[str, tuple[Sequence[int], Callable[[int], dict[str, float]]]] = {
        "texts": (
            TEXTS,
            lambda count: measured(
                given.folder, images=30 // count, texts=count, words=10, rounds=given.rounds
            ),
        ),
        "length": (
            LENGTHS,
            lambda words: measured(
                given.folder, images=4, texts=5, words=words, rounds=given.rounds
            ),
        ),
        "images": (IMAGES, lambda count: cache_of(given.folder / "cache", count)),
    }
    found: dict[str, dict[int, dict[str, float]]] = {}
    for part in given.only.split(","):
        counts, measure = parts[part]
        for count in counts:
            found.setdefault(part, {})[count] = measure(count)
            given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
