"""Renamed recipe keys: the names of version 0.1.0 and today's, which are those of the HF libraries.

Recipes, overrides and lock files with old names load through this table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from qvft.errors import RecipeError
from qvft.log import get_logger
from qvft.recipe.yaml_text import yaml_override_value

logger = get_logger(__name__)

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


def current_keys(
    content: Mapping[str, Any], *, where: str, renamed: dict[str, str] | None = None
) -> dict[str, Any]:
    """A recipe's content under today's key names; raises RecipeError for a key under both names.

    Args:
        renamed: collects the old key paths that were found, with the new ones.
    """
    found = {} if renamed is None else renamed
    return _current(content, "", where=where, found=found)


def current_overrides(
    overrides: Sequence[str], *, renamed: dict[str, str] | None = None
) -> list[str]:
    """`key.path=value` overrides under today's key names; as `current_keys`."""
    given = {override.partition("=")[0].strip() for override in overrides}
    found = {} if renamed is None else renamed
    return [
        current for override in overrides for current in _current_override(override, given, found)
    ]


def renamed_overrides(overrides: Sequence[str]) -> list[str]:
    """As `current_overrides`, with a warning where a key has an old name."""
    renamed: dict[str, str] = {}
    current = current_overrides(overrides, renamed=renamed)
    warn_of_renamed(renamed, where="command line")
    return current


def warn_of_renamed(renamed: Mapping[str, str], *, where: str) -> None:
    """Logs one warning that names the new key of every old one."""
    if renamed:
        names = ", ".join(f"{old} is now {new}" for old, new in sorted(renamed.items()))
        logger.warning("%s: old names of recipe keys still work: %s", where, names)


def old_names(section: str, keys: Sequence[str]) -> tuple[str, ...]:
    """The former names of keys of a section, as lock files of earlier versions have them."""
    paths = {f"{section}.{key}" for key in keys}
    return tuple(old.rpartition(".")[2] for old, new in RENAMED.items() if new in paths)


_OLD = {(new.rpartition(".")[0], old.rpartition(".")[2]): old for old, new in RENAMED.items()}
"""(path of the section under its new name, old key) -> old key path."""
_PHASE = re.compile(r"^phases\.\d+(\.|$)")


def _current(content: Any, path: str, *, where: str, found: dict[str, str]) -> Any:
    """The value at a key path (under its new name), with the keys below it renamed."""
    if path == "phases" and isinstance(content, list):
        numbered = enumerate(content)
        return [_current(one, f"{path}.{n}", where=where, found=found) for n, one in numbered]
    if not isinstance(content, Mapping):
        return content
    section = _PHASE.sub("", path)
    current: dict[str, Any] = {}
    for key, value in content.items():
        for new, inner in _current_key(section, key, value, found).items():
            if new != key and new in content:
                raise _given_twice(key, new, where=f"{where}: {path}" if path else where)
            below = f"{path}.{new}" if path else new
            current[new] = _current(inner, below, where=where, found=found)
    return current


def _current_key(section: str, key: str, value: Any, found: dict[str, str]) -> dict[str, Any]:
    """The keys and values that replace one key of a section."""
    old = _OLD.get((section, key))
    if old is None:
        return {key: value}
    found[old] = RENAMED[old]
    same = {RENAMED[old].rpartition(".")[2]: value}
    changed = NEW_VALUES.get(old, {})
    return dict(changed.get(value, same)) if isinstance(value, str) else same


def _current_override(override: str, given: AbstractSet[str], found: dict[str, str]) -> list[str]:
    """The overrides that replace one."""
    key_path, equals, text = override.partition("=")
    where = f"command line: {key_path.strip()}"
    value = content = yaml_override_value(text, where=where)
    *parents, last = key_path.strip().split(".")
    for part in (last, *reversed(parents)):
        content = {part: content}
    inside: dict[str, str] = {}
    keys = _current(content, "", where=where, found=inside)
    if not equals or not inside:
        return [override]
    found |= inside
    section = ""
    for _ in parents:
        ((name, keys),) = keys.items()
        section += f"{name}."
    for key in keys:
        if section + key in given - {key_path.strip()}:
            raise _given_twice(key_path.strip(), section + key, where="command line")
    return [
        f"{section}{key}={text if new == value else json.dumps(new, ensure_ascii=False)}"
        for key, new in keys.items()
    ]


def _given_twice(old: str, new: str, *, where: str) -> RecipeError:
    given = f'"{old}" and "{new}", the old and the new name of one key'
    return RecipeError(given, where=where, expected=f'"{new}" alone')
