"""Benchmarks whole commands: the plain scripts of `benchmarks/` against `qvft train`, `predict`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from qvft.adapters.targets import lora_layers
from qvft.benchmark.commands import ROUND, CommandPace, measured
from qvft.cpu_threads import cpu_cores
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, evaluation_rows, training_rows
from qvft.data.sample import ImageFile
from qvft.errors import RecipeError
from qvft.inference.generation_config import generation_fields
from qvft.json_files import complete_lines, json_text
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import is_encoder_decoder
from qvft.models.reference_configs import meta_model
from qvft.recipe.load import parse_recipe
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_split
from qvft.setup.learning_rates import with_rates
from qvft.setup.model import base_of, processor_of
from qvft.setup.prompt_template import image_tokens, template_of
from qvft.setup.resolve_model import resolve_model
from qvft.training.arguments import use_bf16

DEFAULT_ALONE = (
    "phases model.init model.quantization data.preprocessing data.augmentations_per_image "
    "trainable.vision trainable.qformer trainable.query_tokens trainable.language_projection "
    "trainable.decoder trainable.lora.use_dora trainable.lora.use_rslora objectives.lm "
    "objectives.alignment objectives.further train.from_ train.batch_tokens train.eval_steps "
    "train.gradient_accumulation_steps train.gradient_checkpointing train.lr_scheduler_type "
    "train.min_lr_rate train.betas train.save_steps train.arguments"
)
"""Keys of which `benchmarks/plain_peft.py` knows the default alone."""


@dataclass(frozen=True)
class CommandBench:
    """Whole commands on the same texts; `equal_texts`: predicted alike, None if trained."""

    commands: dict[str, CommandPace]
    texts: int
    images: int
    threads: int
    equal_texts: int | None = None


def bench_whole(
    recipe: Recipe, *, named: str, overrides: Sequence[str], script: Path, rounds: int
) -> dict[str, CommandBench]:
    """Trains a recipe, `named` and overridden as the command line has it: by the plain script, by
    qvft with an empty feature cache, and with the filled one.

    Raises:
        RecipeError: the recipe asks for what the plain script does not have.
        FailedError: a command failed.
    """
    base, threads, train = base_of(recipe), recipe.run.threads or cpu_cores(), recipe.train
    template = plain_template(recipe, base)
    default = parse_recipe({"name": "default", "model": {"id": recipe.model.id}})
    for key in DEFAULT_ALONE.split():
        value, only = (reduce(getattr, key.split("."), one) for one in (recipe, default))
        if value != only:
            expected = f"{only}: the plain script has no other"
            raise RecipeError(f"{value}", where=key.rstrip("_"), expected=expected)
    if recipe.data.lists("train"):
        raise RecipeError("a list", where="data.train", expected="one source for the plain script")
    split = read_split(recipe, "train")
    rows = training_rows(split.samples, texts=split.source.texts)
    with tempfile.TemporaryDirectory(prefix="qvft-bench-") as folder:
        read = write_rows(Path(folder, "rows.jsonl"), rows, template)
        plain = [str(script), base.location, read, "--out", f"{folder}/plain{ROUND}"]
        plain += plain_arguments(with_rates(recipe, base), base, threads=threads)
        ours = ["-m", "qvft", "train", named, *overrides, f"run.threads={threads}"]
        commands = {
            "plain": plain,
            "qvft, cold": [*ours, f"run.dir={folder}/cold{ROUND}"],
            "qvft, warm": [*ours, f"run.dir={folder}/warm{ROUND}"],
        }
        cache = {"QVFT_CACHE": f"{folder}/cache{ROUND}"}
        paces = measured(commands, rounds=rounds, log=Path(folder, "log"), environment=cache)
    texts = round(train.epochs * len(rows))
    if train.max_steps > 0:
        texts = train.max_steps * train.per_device_train_batch_size
    return {"whole": CommandBench(paces, texts, len(split.samples), threads)}


def bench_serve(recipe: Recipe, *, script: Path, rounds: int) -> dict[str, CommandBench]:
    """Predicts one image, then the recipe's evaluation rows, by the plain script and by qvft.

    Prompts and decoding are those of the model folder, as `qvft predict` has them. On Linux this
    process and the commands get `run.threads` cores.

    Raises:
        RecipeError: `model.id` is no finished BLIP-2.
        FailedError: a command failed.
    """
    opened, threads = resolve_model(recipe.model.id), recipe.run.threads or cpu_cores()
    base = base_of(opened.recipe)
    template, fields = plain_template(opened.recipe, base), generation_fields(opened.recipe)
    split, found = read_split(recipe, "eval"), {}
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    with _on_cores(threads), tempfile.TemporaryDirectory(prefix="qvft-bench-") as folder:
        for title, asked in (("one_image", rows[:1]), ("all_rows", rows)):
            read = write_rows(Path(folder, f"{title}.jsonl"), asked, template, fields)
            plain = [str(script), base.location, read, "--threads", str(threads)]
            plain += ["--stop", template.stop_text, "--dtype", _dtype(recipe)]
            ours = ["-m", "qvft", "predict", opened.name, read]
            ours += [
                f"--batch-size={recipe.eval.batch_size}",
                f"--workers={recipe.data.num_workers}",
            ]
            commands = {
                "plain": [*plain, "--out", f"{read}.plain{ROUND}"],
                "qvft": [*ours, "--out", f"{read}.qvft{ROUND}"],
            }
            paces = measured(commands, rounds=rounds, log=Path(folder, "log"), environment={})
            outs = (complete_lines(Path(f"{read}.{name}0")) for name in commands)
            same = sum(a["text"] == b.get("text") for a, b in zip(*outs, strict=True))
            images = {row.sample.id for row in asked}
            found[title] = CommandBench(paces, len(asked), len(images), threads, same)
    return found


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Context manager: this process, and those that it starts, get `count` cores (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def plain_template(recipe: Recipe, base: BaseCheckpoint) -> PromptTemplate:
    """The prompt template; raises RecipeError if transformers alone has not the same model."""
    made = base.graft or base.stored_queries or base.stored_image_size or base.decoder
    chat = recipe.data.prompt.chat_template
    if base.family.name != "blip2" or is_encoder_decoder(base.config) or made or chat:
        raise RecipeError(
            "not what the plain script knows",
            where=f"model.id={recipe.model.id}",
            expected="a finished BLIP-2 with a decoder-only language model, no chat template",
        )
    return template_of(recipe, base, processor_of(recipe, base))


def write_rows(
    path: Path,
    rows: Sequence[Row],
    template: PromptTemplate,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Writes rows as the plain scripts, and `qvft predict`, read them; returns the path.

    With arguments of `generate` by kind (`fields`) instead of targets. Raises RecipeError for an
    image that is no file.
    """
    lines = []
    for row in rows:
        image = row.sample.image
        if not isinstance(image, ImageFile):
            raise RecipeError(f"{image.name} is in a file of many", where="data", expected="files")
        line: dict[str, Any] = {"image": str(image.path.absolute())}
        line["prompt"] = template.written_prompt(*row.asked)
        if fields is None:
            line["text"] = template.written_target(row.kind, row.target, row.question)
        else:
            line["generate"] = dict(fields[row.kind])
            line |= {} if row.question is None else {"question": row.question}
        lines.append(json_text(line) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def plain_arguments(recipe: Recipe, base: BaseCheckpoint, *, threads: int) -> list[str]:
    """The recipe, with learning rates, as options of `benchmarks/plain_peft.py`."""
    train, lora, stop = recipe.train, recipe.trainable.lora, base.family.stop_text(base.config)
    layers = lora_layers(meta_model(base.config), base.family, ["decoder"], lora.target_modules)
    values = {"epochs": train.epochs, "max-steps": train.max_steps, "stop": stop}
    values |= {"batch-size": train.per_device_train_batch_size, "warmup": train.warmup_steps}
    values |= {"workers": recipe.data.num_workers, "threads": threads, "seed": recipe.run.seed}
    values |= {"r": lora.r, "lora-alpha": lora.lora_alpha, "lora-dropout": lora.lora_dropout}
    values |= {"lora-lr": train.rates["adapters"], "bridge-lr": train.rates["qformer"]}
    values |= {"weight-decay": train.weight_decay, "max-grad-norm": train.max_grad_norm}
    values |= {"max-length": image_tokens(base) + recipe.data.max_text_tokens}
    values |= {"decoder-dropout": recipe.trainable.decoder_dropout, "dtype": _dtype(recipe)}
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    options += ["--bf16"] if use_bf16(train.mixed_precision) else []
    return [*options, "--target-modules", *sorted({one.rpartition(".")[2] for one in layers})]


def _dtype(recipe: Recipe) -> str:
    auto = "bfloat16" if use_bf16("auto") else "float32"
    return auto if recipe.model.dtype == "auto" else recipe.model.dtype
