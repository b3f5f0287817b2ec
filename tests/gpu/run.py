"""What BLIP-2-OPT-2.7B and 6.7B cost on this GPU, measured by qvft's own bench in one call.

    python tests/gpu/run.py OUT.json [--markdown OUT.md] [--minutes 8] [--geometries 2.7b,6.7b]

Random weights of the real geometry, made on the device; drawn images of the real size; five
captions an image; nothing is downloaded, and the disk gets a few MB. For each geometry, at 16
images x 5 captions a step, LoRA of rank 16 on all linear layers of the decoder:

    training: texts/s of plain practice and of qvft, their ratio, TFLOP/s and its share of what a
    large product of bfloat16 matrices reaches on this card; decoding: texts/s of a plain loop and
    of qvft; memory: all on the device while NF4 weights are trained with cached features.

One caption of 20 tokens of QVision's whole geometry: the published loop without a cache, and qvft.
And for the first geometry training with flex attention, with compiled blocks, with both. What is
no longer begun when `--minutes` are up, or fails, stands as "not measured" with the reason. By
arithmetic the largest, plain practice of 6.7B, takes some 45 GB.

`--tiny` takes two narrow layers in each part and runs on a CPU, to try the script itself.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from geometry import (
    ADAPTED,
    GEOMETRIES,
    TEXTS,
    geometry,
    model_on,
    write_base,
    write_data,
    write_qvision,
)
from table import markdown

from qvft.benchmark.caption import bench_caption
from qvft.benchmark.prediction import bench_prediction
from qvft.benchmark.report import machine, training_json
from qvft.benchmark.training import (
    WAYS,
    Steps,
    _laid_out,
    _prepared,
    _rows_of_batches,
    bench_training,
)
from qvft.json_files import write_json
from qvft.models.flex_attention import require_flex, use_flex
from qvft.models.quantize import quantization_config
from qvft.models.unload_vision import unload_vision
from qvft.recipe.load import parse_recipe
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded, base_of, device, with_tools
from qvft.training.arguments import use_bf16
from qvft.training.compiling import require_compiler
from qvft.training.setup_phases import TrainingSetup
from qvft.training.training_setup import training_setup
from tools.quantize_in_place import quantize_in_place


class Session:
    """Measurements under one clock; what fails or comes too late keeps its reason."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.found: dict[str, Any] = {}

    def measure(self, name: str, work: Callable[[], Any]) -> None:
        """Notes what `work` returns under a name, or why it is not there."""
        start = time.monotonic()
        if start > self.end:
            self.found[name] = {"not_measured": "the minutes were up"}
            return
        try:
            self.found[name] = work()
        # Whatever one measurement meets (no memory, no kernel), the others are still wanted.
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            self.found[name] = {"not_measured": reason}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"{name}: {time.monotonic() - start:.1f} s {self.found[name]}"[:300], flush=True)


class Subject:
    """One geometry: its recipe, and models of it."""

    def __init__(self, name: str, folder: Path, *, tiny: bool, images: int) -> None:
        self.config = geometry(name, tiny=tiny)
        self.place = device()
        write_base(folder / "base", self.config)
        data = write_data(
            folder / "data", images=2 * images, side_px=self.config.vision_config.image_size
        )
        source = {"path": str(data)}
        self.recipe: Recipe = parse_recipe(
            {
                "name": f"gpu_{name}",
                "model": {"id": str(folder / "base"), "init": "random", "dtype": "bfloat16"},
                "data": {"train": source, "eval": {**source, "limit": images}, "num_workers": 0},
                "trainable": {"lora": {"r": 16, "target_modules": list(ADAPTED)}},
                "train": {
                    "per_device_train_batch_size": TEXTS * images,
                    "texts_per_image": TEXTS,
                    "mixed_precision": "bf16",
                },
                "eval": {"batch_size": TEXTS * images, "caption": {"max_new_tokens": 20}},
            }
        )

    def loaded(self, *, nf4: bool = False) -> Loaded:
        """A model of random weights with its tools."""
        base = base_of(self.recipe)
        model = model_on(self.place, self.config, torch.bfloat16)
        if nf4:
            config = quantization_config(
                base.family, "nf4", double=True, compute_dtype=torch.bfloat16
            )
            quantize_in_place(model, config)
        return with_tools(self.recipe, base, model)

    def work(self, *, nf4: bool = False) -> TrainingSetup:
        """The training that the recipe says, on such a model."""
        return training_setup(self.recipe, given=self.loaded(nf4=nf4))


def measure_geometry(
    session: Session, subject: Subject, name: str, *, kernels: bool, rounds: int
) -> None:
    """All measurements of a geometry; the NF4 model comes after the other has gone."""
    measure_speed(session, subject, name, kernels=kernels, rounds=rounds)
    gc.collect()
    session.measure(
        f"{name}.nf4_memory_bytes", lambda: training_memory(subject.work(nf4=True), steps=2)
    )


def training_memory(work: TrainingSetup, *, steps: int) -> int:
    """Bytes on the device while a recipe trains with cached features: weights, states, a step.

    The ViT is let go, as training does, and cannot be run afterwards. Without a GPU it is what a
    step takes above what is held before it.
    """
    plan = _prepared(work)
    model = work.loaded.model
    batches = _rows_of_batches(work, plan, steps)
    laid = _laid_out(work, WAYS["qvft"], batches)
    unload_vision(model)
    step = Steps(model, bf16=use_bf16(plan.train.mixed_precision)).memory(WAYS["qvft"], laid)
    held = torch.cuda.memory_allocated(model.device) if model.device.type == "cuda" else 0
    return held + step


def measure_speed(
    session: Session, subject: Subject, name: str, *, kernels: bool, rounds: int
) -> None:
    """Training and decoding with bfloat16 weights."""

    @functools.cache
    def work() -> TrainingSetup:  # built by the first that wants it, whose failure is noted then
        return subject.work()

    def training(wanted: TrainingSetup) -> dict[str, Any]:
        return training_json(
            bench_training(
                wanted.recipe, rounds=rounds, steps=2, ways=("plain", "qvft"), given=wanted
            )
        )

    def decoding() -> dict[str, Any]:
        return asdict(bench_prediction(subject.recipe, rounds=1, given=work().loaded))

    session.measure(f"{name}.training", lambda: training(work()))
    session.measure(f"{name}.decoding", decoding)
    if kernels:
        session.measure(f"{name}.compile", lambda: training(compiled(work())))
        session.measure(f"{name}.flex", lambda: training(with_flex(work())))
        session.measure(f"{name}.flex_compile", lambda: training(compiled(with_flex(work()))))


def measure_caption(session: Session, folder: Path, *, tiny: bool, rounds: int) -> None:
    """One caption of a QVision of random weights."""
    write_qvision(folder, tiny=tiny)
    model = {"id": str(folder), "init": "random", "dtype": "bfloat16"}
    recipe = parse_recipe({"name": "gpu_qvision", "model": model})
    session.measure("qvision.caption", lambda: asdict(bench_caption(recipe, rounds=3 * rounds)))


def compiled(work: TrainingSetup) -> TrainingSetup:
    """The same work with compiled blocks."""
    require_compiler(work.loaded.model.device)
    plans = [
        replace(plan, train=plan.train.model_copy(update={"torch_compile": True}))
        for plan in work.plans
    ]
    return replace(work, plans=plans)


def with_flex(work: TrainingSetup) -> TrainingSetup:
    """The same work, its decoder with flex attention from now on."""
    require_flex(work.loaded.base.config, work.loaded.model.device)
    use_flex(work.loaded.model)
    return work


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--geometries", default=",".join(GEOMETRIES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        print("there is no GPU here; --tiny tries the script on a CPU", file=sys.stderr)
        return 2
    session = Session(given.minutes)
    with tempfile.TemporaryDirectory() as scratch:
        measure_caption(session, Path(scratch) / "qvision", tiny=given.tiny, rounds=given.rounds)
        for index, name in enumerate(given.geometries.split(",")):
            subject = Subject(
                name, Path(scratch) / name, tiny=given.tiny, images=2 if given.tiny else 16
            )
            measure_geometry(session, subject, name, kernels=index == 0, rounds=given.rounds)
            found = {
                "date": datetime.date.today().isoformat(),
                "tiny": given.tiny,
                "machine": {**machine(subject.recipe), "cuda": torch.version.cuda},
                "measured": session.found,
            }
            write_json(given.out, found)
    if given.markdown is not None:
        given.markdown.write_text(markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
