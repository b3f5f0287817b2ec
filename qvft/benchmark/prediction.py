"""Benchmarks inference throughput: batched prediction against a loop of single `generate` calls."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from qvft.benchmark.machine import timed
from qvft.data.images.decoding import decode
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import DataError
from qvft.inference.generation_config import generation_fields
from qvft.inference.predict import predict_texts
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_split
from qvft.setup.model import Loaded, base_model, base_of


@dataclass(frozen=True)
class Pace:
    """Seconds per round, and throughput in texts per second in the median round."""

    seconds: tuple[float, ...]
    texts_per_second: float


@dataclass(frozen=True)
class PredictionPace:
    """Result of the inference benchmark.

    Attributes:
        speedup: qvft's texts per second over the plain loop's, median rounds.
        equal_texts: rows with the same text from both.
    """

    plain: Pace
    qvft: Pace
    speedup: float
    texts: int
    images: int
    equal_texts: int
    batch_size: int
    rounds: int


def bench_prediction(recipe: Recipe, *, rounds: int, given: Loaded | None = None) -> PredictionPace:
    """Generates for the recipe's evaluation data with its base, alternating plain loop and batches.

    Both decode images from files, with the same settings and weights. The first row runs once as
    warm-up. `given` is the model, if already loaded.
    """
    split = read_split(recipe, "eval")
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    if not rows:
        raise DataError("holds no text to predict", where="data.eval")
    loaded = given or base_model(recipe, base_of(recipe))
    loaded.model.eval()
    ways: dict[str, Callable[[list[Row]], list[str]]] = {
        "plain": partial(_plain, loaded, recipe),
        "qvft": partial(
            predict_texts,
            loaded.model,
            loaded.collator,
            generation=generation_fields(recipe),
            batch_size=recipe.eval.batch_size,
            workers=recipe.data.num_workers,
            label="batches",
        ),
    }
    for way in ways.values():
        way(rows[:1])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            texts[name], taken = timed(partial(way, rows))
            seconds[name].append(taken)
    plain, ours = (
        Pace(tuple(taken), len(rows) / statistics.median(taken)) for taken in seconds.values()
    )
    return PredictionPace(
        plain,
        ours,
        speedup=ours.texts_per_second / plain.texts_per_second,
        texts=len(rows),
        images=len(split.samples),
        equal_texts=sum(a == b for a, b in zip(texts["plain"], texts["qvft"], strict=True)),
        batch_size=recipe.eval.batch_size,
        rounds=rounds,
    )


@torch.no_grad()
def _plain(loaded: Loaded, recipe: Recipe, rows: Sequence[Row]) -> list[str]:
    """Processor and `Blip2ForConditionalGeneration.generate`, one row after the other."""
    generation, template = generation_fields(recipe), loaded.template
    stop = [template.stop_id, template.tokenizer.eos_token_id]
    # transformers' own forward expects one type throughout; the bridge is float32 here.
    types = {p.dtype for p in loaded.model.parameters() if p.is_floating_point()}
    mixed = torch.autocast(loaded.model.device.type, torch.bfloat16, enabled=len(types) > 1)
    model: Any = loaded.model  # of a class that has `generate`, in each family
    texts = []
    for row in rows:
        image = decode(row.sample.image, max_pixels=recipe.data.max_image_pixels)
        prompt = template.written_prompt(*row.asked)
        inputs = loaded.processor(images=image, text=prompt, return_tensors="pt")
        with mixed:
            ids = model.generate(
                **inputs.to(model.device), **generation[row.kind], eos_token_id=stop
            )
        before = inputs["input_ids"].shape[1] if template.start_id is None else 1
        texts.append(template.decode(ids[0, before:].tolist()))
    return texts
