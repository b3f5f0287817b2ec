"""Renamed recipe keys: the names of version 0.1.0 and today's, which are those of the HF libraries.

Recipes, overrides and lock files with old names load through this table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
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


def _quantization(scheme: Any) -> dict[str, Any]:
    if scheme == "none":
        return {"load_in_4bit": False}
    return {"load_in_4bit": True, "bnb_4bit_quant_type": scheme}


NEW_VALUES: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "model.quantize.scheme": _quantization,
    "train.precision": lambda value: {"mixed_precision": "no" if value == "fp32" else value},
}
"""Keys whose values changed too: old path -> function from the old value to the new keys that take
its place, with their values."""


def current_keys(
    content: Mapping[str, Any], *, where: str, renamed: dict[str, str] | None = None
) -> dict[str, Any]:
    """A recipe's content under today's key names; the argument is not altered.

    Args:
        where: the file, for messages.
        renamed: collects the old key paths that were found, with the new ones.

    Raises:
        RecipeError: a key is given under its old and its new name.
    """
    found = {} if renamed is None else renamed
    return _current(content, "", where=where, found=found)


def current_overrides(
    overrides: Sequence[str], *, renamed: dict[str, str] | None = None
) -> list[str]:
    """`key.path=value` overrides under today's key names.

    Args:
        renamed: as for `current_keys`.

    Raises:
        RecipeError: a key is given under its old and its new name.
    """
    given = {override.partition("=")[0].strip() for override in overrides}
    found = {} if renamed is None else renamed
    return [
        current for override in overrides for current in _current_override(override, given, found)
    ]


def warn_of_renamed(renamed: Mapping[str, str], *, where: str) -> None:
    """Logs one warning that names the new key of every old one."""
    if renamed:
        said = ", ".join(f"{old} is now {new}" for old, new in sorted(renamed.items()))
        logger.warning("%s: old names of recipe keys still work: %s", where, said)


def old_names(section: str, keys: Sequence[str]) -> tuple[str, ...]:
    """The former names of keys of a section, as lock files of earlier versions have them."""
    paths = {f"{section}.{key}" for key in keys}
    return tuple(old.rpartition(".")[2] for old, new in RENAMED.items() if new in paths)


def _renamed_parts() -> dict[tuple[str, str], str]:
    """(path of the section under its new name, old key) -> old key path."""
    return {(new.rpartition(".")[0], old.rpartition(".")[2]): old for old, new in RENAMED.items()}


_OLD = _renamed_parts()


def _current(
    content: Mapping[str, Any], section: str, *, where: str, found: dict[str, str]
) -> dict[str, Any]:
    """`content` of the section at the path `section`, which has its new name already."""
    current: dict[str, Any] = {}
    for key, value in content.items():
        for new, inner in _current_key(section, key, value, found).items():
            path = f"{section}.{new}" if section else new
            if new != key:
                _refuse_both(_OLD[section, key], path, new in content, where=where)
            if path == "phases" and isinstance(inner, list):
                inner = [
                    _current(one, "", where=f"{where}: phases.{number}", found=found)
                    if isinstance(one, Mapping)
                    else one
                    for number, one in enumerate(inner)
                ]
            elif isinstance(inner, Mapping):
                inner = _current(inner, path, where=where, found=found)
            current[new] = inner
    return current


def _current_key(section: str, key: str, value: Any, found: dict[str, str]) -> dict[str, Any]:
    """The keys and values that take the place of one key of a section."""
    old = _OLD.get((section, key))
    if old is None:
        return {key: value}
    found[old] = RENAMED[old]
    if old in NEW_VALUES:
        return NEW_VALUES[old](value)
    return {RENAMED[old].rpartition(".")[2]: value}


def _current_override(override: str, given: Collection[str], found: dict[str, str]) -> list[str]:
    key_path, equals, text = override.partition("=")
    key_path = key_path.strip()
    parts = key_path.split(".")
    phase = parts[:2] if parts[0] == "phases" and parts[1:] and parts[1].isdecimal() else []
    *parents, last = parts[len(phase) :] or [""]
    section: list[str] = []
    for part in parents:
        old = _OLD.get((".".join(section), part))
        section.append(RENAMED[old].rpartition(".")[2] if old else part)
    where = f"command line: {key_path}"
    value = yaml_override_value(text, where=where)
    inside: dict[str, str] = {}
    if last:
        keys = _current({last: value}, ".".join(section), where=where, found=inside)
    else:  # a whole phase
        (one,) = _current({"phases": [value]}, "", where=where, found=inside)["phases"]
        keys = {"": one}
    if not equals or (section == parents and not inside):
        return [override]
    paths = {".".join(filter(None, [*phase, *section, key])): key for key in keys}
    for path in paths:
        _refuse_both(key_path, path, path != key_path and path in given, where="command line")
    found |= inside if key_path in paths else {key_path: next(iter(paths))}
    return [
        f"{path}={text if keys[key] == value else json.dumps(keys[key], ensure_ascii=False)}"
        for path, key in paths.items()
    ]


def _refuse_both(old: str, new: str, both: bool, *, where: str) -> None:
    if both:
        raise RecipeError(
            f"{old} and {new} are one key, and both are given",
            where=where,
            do=f"leave {old} out, which is its old name",
        )
