"""Builds `transformers.TrainingArguments`: batch size, gradient accumulation, mixed precision."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import PreTrainedModel, TrainingArguments

from qvft.errors import RecipeError
from qvft.log import get_logger
from qvft.models.load import gpu_has_bf16
from qvft.recipe.train import LearningRates
from qvft.training.argument_names import refuse_arguments
from qvft.training.distributed.fsdp import asked_to_shard

logger = get_logger("qvft.train")

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)

# Transformers' "constant" ignores the warm-up.
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}

_SAME_NAME = (
    "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay",
    "max_grad_norm", "warmup_steps", "logging_steps", "eval_steps", "save_total_limit",
)  # fmt: skip
"""Keys of `train` that are passed on as they are."""


def training_arguments(
    train: Mapping[str, Any],
    *,
    output_dir: Path,
    seed: int,
    workers: int,
    has_eval: bool,
    best: str = "eval_token_loss",
    greater_is_better: bool = False,
) -> TrainingArguments:
    """Builds the `TrainingArguments` of a phase."""
    check_arguments(train)
    asked_to_shard()
    on_gpu = torch.cuda.is_available()
    evaluates = has_eval and train["eval_steps"] is not None
    saves = train["save_steps"] or (
        train["eval_steps"] if train["load_best_model_at_end"] else None
    )
    values: dict[str, Any] = {
        "output_dir": str(output_dir),
        **{key: train[key] for key in _SAME_NAME},
        "num_train_epochs": train["epochs"],
        "per_device_eval_batch_size": train["per_device_train_batch_size"],
        "adam_beta1": train["betas"][0],
        "adam_beta2": train["betas"][1],
        "lr_scheduler_type": _SCHEDULES[train["lr_scheduler_type"]],
        "learning_rate": max((train["learning_rate"] or LearningRates().model_dump()).values()),
        "bf16": use_bf16(train["mixed_precision"]),
        "use_cpu": not on_gpu,
        "logging_nan_inf_filter": False,
        "report_to": list(train["report_to"]) or "none",
        "eval_strategy": "steps" if evaluates else "no",
        "save_strategy": "steps" if saves else "no",
        "save_steps": saves or 500,
        "load_best_model_at_end": train["load_best_model_at_end"] and evaluates,
        "metric_for_best_model": best,
        "greater_is_better": greater_is_better,
        "dataloader_num_workers": workers,
        "dataloader_pin_memory": on_gpu,
        "dataloader_persistent_workers": workers > 0,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "seed": seed,
        "ddp_find_unused_parameters": False,
        # Buffers are constants; nothing may be communicated within a pass
        # (distributed/grad_sync.py).
        "ddp_broadcast_buffers": False,
        "disable_tqdm": True,  # progress_line.py
        "restore_callback_states_from_checkpoint": True,
    }
    if train["min_lr_rate"]:
        values["lr_scheduler_type"] = "cosine_with_min_lr"
        values["lr_scheduler_kwargs"] = {"min_lr_rate": train["min_lr_rate"]}
    # An `accelerate config` of the machine must not overrule the recipe.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if values["bf16"] else "no"
    arguments = TrainingArguments(**{**values, **train["arguments"]})
    if arguments.n_gpu > 1:
        # Several GPUs in one process would mean DataParallel, which would split images and texts of
        # a batch differently.
        logger.info("one of %d GPUs is used; accelerate launch uses all", arguments.n_gpu)
        arguments._n_gpu = 1
    return arguments


def use_bf16(mixed_precision: str) -> bool:
    """Whether to use bfloat16 mixed precision (autocast): on request, or if the GPU supports it."""
    if mixed_precision == "auto":
        return gpu_has_bf16()
    return mixed_precision == "bf16"


def recompute_activations(model: PreTrainedModel, enabled: bool) -> None:
    """Switches gradient checkpointing on or off, always non-reentrant.

    Reentrant checkpointing gives adapters no gradient if a block's inputs are frozen.
    """
    if enabled:
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.activation_checkpointing_disable()


def check_arguments(train: Mapping[str, Any]) -> None:
    """Checks names and types of the fields in `train.arguments`.

    Raises:
        RecipeError: an unknown field, one that has a key of its own, one without effect, or a
            value of another type.
    """
    refuse_arguments(train)
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    for key in train["arguments"]:
        where = f"train.arguments.{key}"
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise RecipeError(
                "is not a field of transformers.TrainingArguments",
                where=where,
                do=f'did you mean "{near[0]}"?' if near else None,
            )
        value, declared = train["arguments"][key], get_type_hints(TrainingArguments)[key]
        try:
            TypeAdapter(declared, config=_STRICT).validate_python(value)
        except ValidationError as error:
            expected = declared.__name__ if isinstance(declared, type) else str(declared)
            expected = expected.replace("typing.", "")
            raise RecipeError(f"{value!r}", where=where, expected=expected) from error
