"""Recipe keys that version 0.1.0 called otherwise: its lock files are translated, a recipe or an
override with an old name is refused with the new one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

RENAMED: Mapping[str, str] = {
    "tune": "trainable",
    "tune.decoder_frozen": "trainable.frozen_decoder_fraction",
    "tune.lora.alpha": "trainable.lora.lora_alpha",
    "tune.lora.dropout": "trainable.lora.lora_dropout",
    "tune.lora.targets": "trainable.lora.target_modules",
    "tune.lora.dora": "trainable.lora.use_dora",
    "tune.lora.rslora": "trainable.lora.use_rslora",
    "model.attention": "model.attn_implementation",
    "model.quantize": "model.quantization",
    "model.quantize.scheme": "model.quantization.load_in_4bit",
    "model.quantize.double": "model.quantization.bnb_4bit_use_double_quant",
    "data.workers": "data.num_workers",
    "data.views": "data.augmentations_per_image",
    "data.train.allow_outside": "data.train.allow_paths_outside_root",
    "data.eval.allow_outside": "data.eval.allow_paths_outside_root",
    "train.batch_size": "train.per_device_train_batch_size",
    "train.accumulation": "train.gradient_accumulation_steps",
    "train.lr": "train.learning_rate",
    "train.clip": "train.max_grad_norm",
    "train.warmup": "train.warmup_steps",
    "train.schedule": "train.lr_scheduler_type",
    "train.precision": "train.mixed_precision",
    "train.checkpointing": "train.gradient_checkpointing",
    "train.compile": "train.torch_compile",
    "train.keep": "train.save_total_limit",
    "train.keep_best": "train.load_best_model_at_end",
    "train.early_stopping": "train.early_stopping_patience",
    "train.log_steps": "train.logging_steps",
    "eval.grid": "eval.report_images",
}
"""Old key path -> new key path. A rename changes the last part of a path, never its depth."""

NEW_VALUES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "model.quantize.scheme": {
        "none": {"load_in_4bit": False},
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    },
    "train.precision": {"fp32": {"mixed_precision": "no"}},
}
"""Values that changed too: old key path -> old value -> the new keys and values in its place."""


_OLD = {(new.rpartition(".")[0], old.rpartition(".")[2]): old for old, new in RENAMED.items()}
"""(path of the section under its new name, old key) -> old key path."""
_PHASE = re.compile(r"^phases\.\d+(\.|$)")


def current_keys(content: Any, path: str = "") -> Any:
    """A lock file's content, or what it has at a key path, under today's key names."""
    if path == "phases" and isinstance(content, list):
        return [current_keys(one, f"{path}.{number}") for number, one in enumerate(content)]
    if not isinstance(content, Mapping):
        return content
    current: dict[str, Any] = {}
    for key, value in content.items():
        old = _OLD.get((_PHASE.sub("", path), key))
        replaced = {key if old is None else RENAMED[old].rpartition(".")[2]: value}
        if isinstance(value, str):
            replaced = dict(NEW_VALUES.get(old or "", {}).get(value, replaced))
        for new, inner in replaced.items():
            current[new] = current_keys(inner, f"{path}.{new}" if path else new)
    return current


def new_name(key: str, known: Collection[str]) -> str | None:
    """Today's name of a key of the section with the keys `known`; None if it had no other."""
    names = ((old.rpartition(".")[2], new.rpartition(".")[2]) for old, new in RENAMED.items())
    return next((new for old, new in names if old == key and new in known), None)


def old_names(section: str, keys: Sequence[str]) -> tuple[str, ...]:
    """The former names of keys of a section, as lock files of earlier versions have them."""
    paths = {f"{section}.{key}" for key in keys}
    return tuple(old.rpartition(".")[2] for old, new in RENAMED.items() if new in paths)
