"""Loads a recipe from YAML and overrides."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from qvft.errors import RecipeError
from qvft.files import given_path
from qvft.recipe.overrides import apply_overrides, shown
from qvft.recipe.renamed_keys import current_keys, warn_of_renamed
from qvft.recipe.schema import Phase, Recipe
from qvft.recipe.secrets import refuse_secrets
from qvft.recipe.section import fields_by_key, section_of
from qvft.recipe.train import Train
from qvft.recipe.trainable import Trainable
from qvft.recipe.unused_keys import idle_sections, refuse_idle
from qvft.recipe.yaml_text import yaml_file_value

LOCK_NAME = "recipe.lock.yaml"
"""Name of a run's lock file."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe, applies `key.path=value` overrides and checks every key; raises RecipeError.

    Args:
        overrides: values are read as YAML, so `train.epochs=3`, `run.dir=null`, `a=[x, y]` work.
    """
    renamed: dict[str, str] = {}
    content = current_keys(read_yaml(given_path(str(path))), where=str(path), renamed=renamed)
    if Path(path).name != LOCK_NAME:  # nobody writes locks by hand
        warn_of_renamed(renamed, where=str(path))
    overrides = apply_overrides(content, overrides)
    recipe = parse_recipe(content, where=str(path))
    refuse_idle(recipe, idle_keys(recipe), overrides)
    return recipe


def idle_keys(recipe: Recipe) -> dict[str, str]:
    """Keys and sections of a recipe without effect, with the reason."""
    phases = recipe.phases or [Phase(name="train")]
    return dict(idle_sections(recipe, [resolve_phase(recipe, phase) for phase in phases]))


def parse_recipe(content: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Validates a mapping and its phases. Raises RecipeError naming key path and nearest name."""
    refuse_secrets(content, where=where)
    recipe = _validate(Recipe, current_keys(content, where=where), where)
    seen: set[str] = set()
    for index, phase in enumerate(recipe.phases):
        if phase.name in seen:
            raise RecipeError(f'two phases are called "{phase.name}"', where=f"{where}: phases")
        seen.add(phase.name)
        trainable, _ = resolve_phase(recipe, phase, where=f"{where}: phases.{index}")
        _require_trained(recipe, trainable, phase, where=f"{where}: phases.{index}.trainable")
    if not recipe.phases:
        _require_trained(recipe, recipe.trainable, None, where=f"{where}: trainable")
    return recipe


def _require_trained(
    recipe: Recipe, trainable: Trainable, phase: Phase | None, *, where: str
) -> None:
    has_heads = bool(recipe.objectives.alignment or recipe.objectives.further)
    has_heads &= phase is None or phase.objective == "language"
    parts = ("vision", "qformer", "query_tokens", "language_projection", "decoder")
    if not has_heads and all(getattr(trainable, part) == "frozen" for part in parts):
        raise RecipeError(
            f"{', '.join(parts)} are all frozen: nothing would be trained",
            where=where,
            do="set trainable.decoder=lora or trainable.qformer=full, for example",
        )


def resolve_phase(
    recipe: Recipe, phase: Phase, *, where: str = "recipe"
) -> tuple[Trainable, Train]:
    """The `trainable` and `train` sections of a phase, with its overrides."""
    trainable = merge(recipe.trainable.model_dump(), phase.trainable)
    train = merge(recipe.train.model_dump(), phase.train)
    return (
        _validate(Trainable, trainable, f"{where}.trainable"),
        _validate(Train, train, f"{where}.train"),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML 1.2 file holds. Raises RecipeError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RecipeError(
            "no such recipe file", where=str(path), do="recipes/ holds one recipe per outcome"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"not UTF-8 at byte {error.start}", where=str(path)) from error
    except (OSError, ValueError) as error:  # a ValueError: a zero character
        raise RecipeError(f"cannot be read ({error})", where=str(path)) from error
    content = yaml_file_value(text, where=str(path))
    if not isinstance(content, dict):
        given = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise RecipeError(given, where=str(path), expected="a mapping of recipe keys")
    return content


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated recursively with `changes`; neither is modified."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _validate(model: type[BaseModel], content: Mapping[str, Any], where: str) -> Any:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_describe(model, item) for item in error.errors()]
        raise RecipeError("; ".join(lines), where=where) from None


def _describe(model: type[BaseModel], item: Mapping[str, Any]) -> str:
    path = [part for part in item["loc"] if not str(part).startswith("[")]
    dotted = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        known = sorted(fields_by_key(_section(model, path[:-1])))
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "known keys: " + ", ".join(known)
        return f'unknown key "{dotted}" ({hint})'
    if item["type"] == "missing":
        return f'key "{dotted}" is missing'
    message = item["msg"].removeprefix("Value error, ")
    kinds = ("model_type", "dict_type", "list_type")
    if item["type"] in kinds and isinstance(item["input"], str) and item["input"][:1] in ("[", "{"):
        ask = "expected YAML: close each bracket, and quote texts that hold any of [ ] { } , :"
        return f"{dotted}={shown(item['input'])}: {ask}"
    if item["type"] in ("model_type", "dict_type"):
        return f"{dotted}={shown(item['input'])}: {_keys_of(model, path)}"
    if item["type"] == "list_type":
        given = shown(item["input"])
        example = item["input"] if isinstance(item["input"], str | int | float) else "..."
        one = "all-linear, or a list of names" if dotted.endswith("target_modules") else "a list"
        return f"{dotted}={given}: expected {one}, e.g. {dotted}=[{example}]"
    if item["type"] == "string_type" and isinstance(item["input"], Mapping):
        read = item["input"]  # as YAML reads a text in braces, or with a colon
        pairs = ", ".join(str(k) if v is None else f"{k}: {v}" for k, v in read.items())
        text = pairs if len(read) == 1 and None not in read.values() else f"{{{pairs}}}"
        return f"{dotted}={shown(item['input'])}: expected a text; write it in quotes: '\"{text}\"'"
    if item["type"] == "value_error":
        return f"{dotted}: {message}" if dotted else message
    return f"{dotted}={shown(item['input'])}: {message[0].lower()}{message[1:]}"


def _keys_of(model: type[BaseModel], path: Sequence[Any]) -> str:
    """What to give for a section at `path`, instead of a single value."""
    try:
        known = list(fields_by_key(_section(model, path)))
    except KeyError:  # a mapping of free keys
        return "expected a mapping, {key: value}"
    dotted = ".".join(str(part) for part in path)
    one = "one number, or " if model is Recipe and dotted == "train.learning_rate" else ""
    return f"expected {one}its keys, e.g. {dotted}.{known[0]}=...; they are {', '.join(known)}"


def _section(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    """The section class that `path` leads to from `model`."""
    for part in path:
        if isinstance(part, int):
            continue
        inner = section_of(fields_by_key(model)[part].annotation)
        if inner is None:
            raise KeyError(part)
        model = inner
    return model
