"""Benchmarks whole commands, each in a process of its own: plain scripts against qvft's programs.

`benchmarks/` in qvft's repository has the plain scripts; they are not installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
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
from qvft.errors import DataError, RecipeError
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

DEFAULT_ALONE: dict[str, tuple[str, ...]] = {
    "model": ("init", "quantization"),
    "data": ("preprocessing", "augmentations_per_image"),
    "trainable": ("vision", "qformer", "query_tokens", "language_projection", "decoder"),
    "trainable.lora": ("use_dora", "use_rslora"),
    "train": (
        "from_", "batch_tokens", "gradient_accumulation_steps", "gradient_checkpointing",
        "lr_scheduler_type", "min_lr_rate",
    ),
    "objectives": ("lm", "alignment", "further"),
}  # fmt: skip
"""Keys of which `benchmarks/plain_peft.py` knows the default alone."""


@dataclass(frozen=True)
class CommandBench:
    """Whole commands on the same `texts` of `images`; `plain` is the first.

    Attributes:
        equal_texts: predicted texts that are the same; None for training.
    """

    commands: dict[str, CommandPace]
    texts: int
    images: int
    rounds: int
    threads: int
    equal_texts: int | None = None


def bench_whole(
    recipe: Recipe, *, named: str, overrides: Sequence[str], script: Path, rounds: int
) -> CommandBench:
    """Trains by the plain script, by qvft with an empty feature cache, and with the filled one.

    Args:
        named, overrides: the recipe, as the command line has it.

    Raises:
        RecipeError: the recipe asks for what the plain script does not have.
        FailedError: a command failed.
    """
    base, threads = base_of(recipe), recipe.run.threads or cpu_cores()
    require_plain_model(recipe, base)
    require_defaults(recipe)
    split = read_split(recipe, "train")
    rows = training_rows(split.samples, texts=split.source.texts)
    with tempfile.TemporaryDirectory(prefix="qvft-bench-") as name:
        folder, template = Path(name), template_of(recipe, base, processor_of(recipe, base))
        write_rows(folder / "rows.jsonl", rows, template)
        plain = [str(script), base.location, str(folder / "rows.jsonl")]
        plain += plain_arguments(with_rates(recipe, base), base, threads=threads)
        own = ["train.resume=never", f"run.threads={threads}"]
        ours = ["-m", "qvft", "train", named, *overrides, *own]
        paces = measured(
            {
                "plain": [*plain, "--out", str(folder / f"plain{ROUND}")],
                "qvft_cold": [*ours, f"run.dir={folder}/cold{ROUND}"],
                "qvft_warm": [*ours, f"run.dir={folder}/warm{ROUND}"],
            },
            rounds=rounds,
            log=folder / "log",
            environment={"QVFT_CACHE": str(folder / f"cache{ROUND}")},
        )
    train = recipe.train
    steps = train.max_steps * train.per_device_train_batch_size
    texts = steps if train.max_steps > 0 else round(train.epochs * len(rows))
    return CommandBench(paces, texts, len(split.samples), rounds, threads)


def bench_serve(recipe: Recipe, *, script: Path, rounds: int) -> dict[str, CommandBench]:
    """Predicts one image, then the recipe's evaluation rows, by the plain script and by qvft.

    Prompts and decoding are those of the model folder, as `qvft predict` has them. On Linux a
    command gets `run.threads` cores.

    Raises:
        RecipeError: `model.id` is no finished BLIP-2.
        FailedError: a command failed.
    """
    opened = resolve_model(recipe.model.id)
    if opened.kind == "run":
        raise RecipeError(
            "a run", where=f"model.id={recipe.model.id}", expected="a merged model (qvft merge)"
        )
    base, threads = base_of(opened.recipe), recipe.run.threads or cpu_cores()
    require_plain_model(opened.recipe, base)
    template = template_of(opened.recipe, base, processor_of(opened.recipe, base))
    split = read_split(recipe, "eval")
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    if not rows:
        raise DataError("holds no text to predict", where="data.eval")
    fields, found = generation_fields(opened.recipe), {}
    with tempfile.TemporaryDirectory(prefix="qvft-bench-") as name:
        for title, asked in (("one_image", rows[:1]), ("all_rows", rows)):
            read = Path(name) / f"{title}.jsonl"
            write_rows(read, asked, template, fields=fields)
            plain = [str(script), base.location, str(read), "--threads", str(threads)]
            plain += ["--stop", template.stop_text, "--dtype", _dtype(recipe)]
            ours = ["-m", "qvft", "predict", opened.name, str(read)]
            ours += ["--batch-size", str(recipe.eval.batch_size)]
            ours += ["--workers", str(recipe.data.num_workers)]
            paces = measured(
                {
                    "plain": [*plain, "--out", f"{read}.plain{ROUND}"],
                    "qvft": [*ours, "--out", f"{read}.qvft{ROUND}"],
                },
                rounds=rounds,
                log=Path(name) / "log",
                cores=threads,
            )
            outs = [complete_lines(Path(f"{read}.{side}0")) for side in paces]
            same = sum(a["text"] == b.get("text") for a, b in zip(*outs, strict=True))
            images = len({row.sample.id for row in asked})
            found[title] = CommandBench(paces, len(asked), images, rounds, threads, same)
    return found


def require_plain_model(recipe: Recipe, base: BaseCheckpoint) -> None:
    """Checks that transformers alone loads the model and writes its prompts; raises RecipeError."""
    made = base.graft or base.stored_queries or base.stored_image_size or base.decoder
    chat = recipe.data.prompt.chat_template
    if base.family.name != "blip2" or is_encoder_decoder(base.config) or made or chat:
        raise RecipeError(
            "not what the plain script knows",
            where=f"model.id={recipe.model.id}",
            expected="a BLIP-2 with a decoder-only language model, as its folder has it, and "
            "prompts without a chat template",
        )


def require_defaults(recipe: Recipe) -> None:
    """Checks that the plain script trains as the recipe says; raises RecipeError."""
    default = parse_recipe({"name": "default", "model": {"id": recipe.model.id}})
    keys = [f"{section}.{key}" for section, keys in DEFAULT_ALONE.items() for key in keys]
    for key in ("phases", *keys):
        value, only = (reduce(getattr, key.split("."), one) for one in (recipe, default))
        if value != only:
            expected = f"{only}: the plain script has no other"
            raise RecipeError(f"{value}", where=key.rstrip("_"), expected=expected)


def write_rows(
    path: Path,
    rows: Sequence[Row],
    template: PromptTemplate,
    *,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes rows with prompt and target as the plain scripts read them; questions are qvft's.

    Args:
        fields: arguments of `generate` for captions and for answers, instead of a target.

    Raises:
        RecipeError: an image is no file.
    """
    lines = []
    for row in rows:
        image = row.sample.image
        if not isinstance(image, ImageFile):
            raise RecipeError(
                f"{image.name} is no file of its own", where="data", expected="image files"
            )
        line: dict[str, Any] = {"image": str(image.path.absolute())}
        line["prompt"] = template.written_prompt(*row.asked)
        if fields is None:
            line["text"] = template.written_target(row.kind, row.target, row.question)
        else:
            line["generate"] = dict(fields[row.kind])
            line |= {} if row.question is None else {"question": row.question}
        lines.append(json_text(line) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def plain_arguments(recipe: Recipe, base: BaseCheckpoint, *, threads: int) -> list[str]:
    """The recipe as options of `benchmarks/plain_peft.py`, learning rates resolved."""
    train, lora = recipe.train, recipe.trainable.lora
    layers = lora_layers(meta_model(base.config), base.family, ["decoder"], lora.target_modules)
    values = {
        "epochs": train.epochs,
        "max-steps": train.max_steps,
        "batch-size": train.per_device_train_batch_size,
        "workers": recipe.data.num_workers,
        "threads": threads,
        "seed": recipe.run.seed,
        "r": lora.r,
        "lora-alpha": lora.lora_alpha,
        "lora-dropout": lora.lora_dropout,
        "lora-lr": train.rates["adapters"],
        "bridge-lr": train.rates["qformer"],
        "weight-decay": train.weight_decay,
        "warmup": train.warmup_steps,
        "max-grad-norm": train.max_grad_norm,
        "max-length": image_tokens(base) + recipe.data.max_text_tokens,
        "decoder-dropout": recipe.trainable.decoder_dropout,
        "dtype": _dtype(recipe),
        "attn-implementation": recipe.model.kernel,
        "stop": base.family.stop_text(base.config),
    }
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    options += ["--target-modules", *sorted({name.rpartition(".")[2] for name in layers})]
    return [*options, *(["--bf16"] if use_bf16(train.mixed_precision) else [])]


def _dtype(recipe: Recipe) -> str:
    auto = "bfloat16" if use_bf16("auto") else "float32"
    return auto if recipe.model.dtype == "auto" else recipe.model.dtype
