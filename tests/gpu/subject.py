"""A model of one geometry with its recipe and data, and what is measured on it."""

from __future__ import annotations

import gc
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from geometry import GEOMETRIES, TEXTS, model_on, write_base, write_data

from qvft.benchmark.machine import matmul_rate
from qvft.benchmark.prediction import bench_prediction
from qvft.benchmark.report import training_json
from qvft.benchmark.steps import WAYS, Steps
from qvft.benchmark.training import (
    bench_training,
    laid_out,
    measured_paces,
    prepared,
    rows_of_batches,
)
from qvft.models.flex_attention import require_flex, use_flex
from qvft.models.quantize import quantization_config
from qvft.recipe.load import parse_recipe
from qvft.recipe.schema import Recipe
from qvft.setup.feature_cache import unload_vision
from qvft.setup.model import base_of, device, with_tools
from qvft.training.arguments import use_bf16
from qvft.training.compiling import require_compiler
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun
from tools.quantize_in_place import quantize_in_place


class Subject:
    """One geometry: the recipe, and one model at a time."""

    def __init__(self, name: str, folder: Path, *, tiny: bool, rounds: int) -> None:
        geometry = GEOMETRIES[name]
        self.config = geometry.config(tiny=tiny)
        self.rounds = rounds
        self.steps, images, new_tokens = (1, 2, 4) if tiny else (2, 16, 20)
        self._held: dict[bool, TrainingRun] = {}
        write_base(folder / "base", self.config)
        data = write_data(
            folder / "data",
            images=self.steps * images,
            side_px=self.config.vision_config.image_size,
            asked=geometry.reads_questions,
        )
        source = {"path": str(data)}
        self.recipe: Recipe = parse_recipe(
            {
                "name": f"gpu_{name}",
                "model": {"id": str(folder / "base"), "init": "random", "dtype": "bfloat16"},
                "data": {"train": source, "eval": {**source, "limit": images}, "num_workers": 0},
                "trainable": {"lora": {"r": 16, "target_modules": "all-linear"}},
                "train": {
                    "per_device_train_batch_size": TEXTS * images,
                    "texts_per_image": TEXTS,
                    "mixed_precision": "bf16",
                },
                "eval": {
                    "batch_size": TEXTS * images,
                    "caption": {"max_new_tokens": new_tokens},
                    "answer": {"max_new_tokens": new_tokens},
                },
            }
        )

    def work(self, *, nf4: bool = False) -> TrainingRun:
        """The training of the recipe on a random model, kept until the other one is wanted."""
        if nf4 not in self._held:
            self._held.clear()
            gc.collect()
            base = base_of(self.recipe)
            model = model_on(device(), self.config, torch.bfloat16)
            if nf4:
                quantize_in_place(
                    model,
                    quantization_config(
                        base.family, "nf4", double=True, compute_dtype=torch.bfloat16
                    ),
                )
            given = with_tools(self.recipe, base, model)
            self._held[nf4] = prepare_training(self.recipe, given=given)
        return self._held[nf4]


def training(subject: Subject, *, nf4: bool = False) -> dict[str, Any]:
    """Plain practice, qvft with live features (`packed`) and qvft with cached ones."""
    return _compared(subject, subject.work(nf4=nf4), "plain", "packed", "qvft")


def nf4_training(subject: Subject) -> dict[str, Any]:
    """`training` with the decoder in NF4."""
    return training(subject, nf4=True)


def compiled_training(subject: Subject) -> dict[str, Any]:
    """Plain practice, and qvft with compiled blocks."""
    return _compared(subject, _compiled(subject.work()), "plain", "qvft")


def flex_training(subject: Subject) -> dict[str, Any]:
    """Plain practice, and qvft with flex attention from now on."""
    return _compared(subject, _with_flex(subject.work()), "plain", "qvft")


def compiled_flex_training(subject: Subject) -> dict[str, Any]:
    """Plain practice, and qvft with flex attention in compiled blocks."""
    return _compared(subject, _compiled(_with_flex(subject.work())), "plain", "qvft")


def training_alone(subject: Subject) -> dict[str, Any]:
    """qvft with live and with cached features; an encoder-decoder has no plain implementation."""
    work = subject.work()
    batches = rows_of_batches(work, prepared(work), subject.steps)
    laid = {name: laid_out(work, WAYS[name], batches) for name in ("packed", "qvft")}
    model = work.loaded.model
    paces = measured_paces(
        Steps(model, bf16=True),
        laid,
        texts=sum(len(rows) for rows in batches),
        rounds=subject.rounds,
    )
    ways = {name: asdict(pace) for name, pace in paces.items()}
    rate = matmul_rate(model.device, torch.bfloat16)
    return {"qvft": ways.pop("qvft"), "parts": ways, "matmul_flops_per_second": rate}


def decoding(subject: Subject, *, nf4: bool = False) -> dict[str, Any]:
    """Greedy texts of a plain loop and of qvft."""
    return asdict(bench_prediction(subject.recipe, rounds=1, given=subject.work(nf4=nf4).loaded))


def nf4_decoding(subject: Subject) -> dict[str, Any]:
    """`decoding` with the decoder in NF4."""
    return decoding(subject, nf4=True)


def nf4_memory_bytes(subject: Subject) -> int:
    """Bytes on the device while NF4 trains with cached features: weights, states, a step.

    The ViT is unloaded, as training does, and cannot be run afterwards. Without a GPU it is what a
    step takes above what is held before it.
    """
    work = subject.work(nf4=True)
    plan = prepared(work)
    model = work.loaded.model
    laid = laid_out(work, WAYS["qvft"], rows_of_batches(work, plan, subject.steps))
    unload_vision(model)
    step = Steps(model, bf16=use_bf16(plan.train.mixed_precision)).memory(WAYS["qvft"], laid)
    held = torch.cuda.memory_allocated(model.device) if model.device.type == "cuda" else 0
    return held + step


def _compared(subject: Subject, work: TrainingRun, *ways: str) -> dict[str, Any]:
    return training_json(
        bench_training(
            work.recipe, rounds=subject.rounds, steps=subject.steps, ways=ways, given=work
        )
    )


def _compiled(work: TrainingRun) -> TrainingRun:
    require_compiler(work.loaded.model.device)
    plans = [
        replace(plan, train=plan.train.model_copy(update={"torch_compile": True}))
        for plan in work.plans
    ]
    return replace(work, plans=plans)


def _with_flex(work: TrainingRun) -> TrainingRun:
    require_flex(work.loaded.base.config, work.loaded.model.device)
    use_flex(work.loaded.model)
    return work
