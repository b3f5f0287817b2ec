"""The programs that are killed: how each is started, what it writes, and what must come out."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qvft.files import sha256_file

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

IMAGES = 48
SHARD_IMAGES = 4
"""Images of a shard of the cache, instead of 256, so that a pass over few images writes many."""


@dataclass(frozen=True)
class Stage:
    """A program under fire.

    Attributes:
        name: of the stage.
        start: runs it in a folder of its own, going on where it was stopped; returns its status.
        result: of that folder, what must not depend on kills: hashes and values by name.
        done: whether there is nothing left to do, so that it need not be started again.
    """

    name: str
    start: Callable[[Path], int]
    result: Callable[[Path], dict[str, Any]]
    done: Callable[[Path], bool]


def make_data(folder: Path) -> Path:
    """A recipe file; beside it a model of the embedded geometry and small plain images."""
    from PIL import Image

    from tools.tiny_blip2.drawn import vocabulary_texts
    from tools.tiny_blip2.geometry import init_tiny, tiny_processor

    model = folder / "model"
    init_tiny(0).save_pretrained(model)
    tiny_processor(vocabulary_texts()).save_pretrained(model)
    (folder / "images").mkdir()
    lines = []
    for index in range(IMAGES):
        name = ("red", "green", "blue")[index % 3]
        shade = [40 + 4 * index if place == index % 3 else 20 for place in range(3)]
        Image.new("RGB", (24, 24), tuple(shade)).save(folder / "images" / f"{index}.png")
        asked = [
            {"question": "Which colour is it?", "answers": [name]},
            {"question": "Is it red?", "answers": ["yes" if name == "red" else "no"]},
        ]
        row = {"id": f"{index}", "image": f"images/{index}.png", "captions": [f"a {name} picture"]}
        lines.append(json.dumps({**row, "questions": asked}) + "\n")
    (folder / "train.jsonl").write_text("".join(lines[8:]))
    (folder / "eval.jsonl").write_text("".join(lines[:8]))
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"""
name: killed
model: {{id: "{model}"}}
data:
  train: {{path: "{folder / "train.jsonl"}"}}
  eval: {{path: "{folder / "eval.jsonl"}", name: eval}}
  num_workers: 0
trainable: {{lora: {{r: 4, lora_alpha: 8, lora_dropout: 0.1}}, decoder_dropout: 0.1}}
phases:
  - {{name: first, trainable: {{decoder: frozen}}, train: {{max_steps: 4}}}}
  - {{name: second, train: {{max_steps: 6}}}}
train:
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 2
  eval_steps: 2
  save_steps: 2
  save_total_limit: 2
  load_best_model_at_end: true
  early_stopping_patience: 3
  logging_steps: 1
  learning_rate:
    {{qformer: 1.0e-3, query_tokens: 1.0e-3, language_projection: 1.0e-3, adapters: 1.0e-3}}
eval: {{batch_size: 4, answer: {{max_new_tokens: 6}}, caption: {{max_new_tokens: 6}}}}
run: {{threads: 1}}
""")
    return recipe


def stages(recipe: Path, run: Path) -> dict[str, Stage]:
    """All stages by name.

    Args:
        recipe: from `make_data`.
        run: a finished run of it, which the later stages work on; the first writes it.
    """
    images = recipe.parent / "images"
    made = (
        Stage("train", partial(_train, recipe), _trained, _never),
        Stage("cache", partial(_cache, recipe), _cached, _never),
        Stage("eval", partial(_evaluate, run), _evaluated, _never),
        Stage("predict", partial(_predict, run, images), _predicted, _never),
        Stage("merge", partial(_merge, run), _merged, lambda folder: (folder / "out").exists()),
    )
    return {stage.name: stage for stage in made}


def _never(folder: Path) -> bool:
    return False


def _train(recipe: Path, folder: Path) -> int:
    from qvft.train import main

    return main([str(recipe), f"run.dir={folder / 'run'}", "train.resume=auto"])


def _trained(folder: Path) -> dict[str, Any]:
    run = folder / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = {path.name for path in run.rglob("*") if path.name.startswith(".")}
    return {
        **_hashes(run / "adapter"),
        "losses": [[row["phase"], row["step"], row["loss"]] for row in rows if "loss" in row],
        "evaluated": [
            [row["phase"], row["step"], row["eval_loss"]] for row in rows if "eval_loss" in row
        ],
        "left over": sorted(kept),
    }


def _cache(recipe: Path, folder: Path) -> int:
    import os

    import qvft.setup.feature_cache as features
    from qvft.log import exit_status
    from qvft.recipe.load import load_recipe
    from qvft.training.prepare_training import prepare_training

    os.environ["QVFT_CACHE"] = str(folder / "cache")
    features.fill = partial(features.fill, shard_images=SHARD_IMAGES)
    features.CHUNK = SHARD_IMAGES
    return exit_status(lambda: prepare_training(load_recipe(str(recipe), ())).cache_features())


def _cached(folder: Path) -> dict[str, Any]:
    """The features of each key, as the files hold them; a damaged shard is an error."""
    from safetensors.torch import load_file

    from qvft.data.features.folders import shard_files, spaces
    from qvft.data.features.shards import read_keys

    found: dict[str, Any] = {}
    for space in spaces(folder / "cache"):
        for path in shard_files(space.folder):
            for key, features in zip(read_keys(path), load_file(path)["features"], strict=True):
                assert key.hex() not in found, "an image's features stand twice"
                found[key.hex()] = hashlib.sha256(features.numpy().tobytes()).hexdigest()
    return found


def _evaluate(run: Path, folder: Path) -> int:
    from qvft.eval import main

    return main([str(run), "--out", str(folder / "report")])


def _evaluated(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report" / "report.json").read_text())
    report.pop("wall_seconds")
    return {
        "report": report,
        "predictions": sha256_file(folder / "report" / "predictions.jsonl"),
        "files": sorted(path.name for path in folder.rglob("*")),
    }


def _predict(run: Path, images: Path, folder: Path) -> int:
    from qvft.predict import main

    out = ["--out", str(folder / "out.jsonl"), "--resume", "--workers", "0", "--batch-size", "4"]
    return main([str(run), str(images), "--question", "Which colour is it?", *out])


def _predicted(folder: Path) -> dict[str, Any]:
    return _hashes(folder)


def _merge(run: Path, folder: Path) -> int:
    from qvft.merge import main

    return main([str(run), str(folder / "out"), "--shard-size", "4MB"])


def _merged(folder: Path) -> dict[str, Any]:
    return {**_hashes(folder / "out"), "folder": sorted(path.name for path in folder.iterdir())}


def _hashes(folder: Path) -> dict[str, Any]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}
