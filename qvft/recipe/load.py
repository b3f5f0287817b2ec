"""From a YAML file and overrides to a `Recipe`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from qvft.errors import RecipeError
from qvft.files import given_path
from qvft.recipe.schema import Phase, Recipe, Tune
from qvft.recipe.secrets import refuse_secrets
from qvft.recipe.train import Train, one_rate_for_all
from qvft.recipe.unused_keys import idle_sections, refuse_idle
from qvft.recipe.yaml_text import yaml_file_value, yaml_override_value


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe, applies `key.path=value` overrides and checks every key.

    Args:
        path: YAML 1.2 file.
        overrides: values are read as YAML, so `train.epochs=3`, `run.dir=null`, `a=[x, y]` work.

    Raises:
        RecipeError: no such file, not YAML, equal keys, an unknown or ill-typed key, an override
            that would have no effect.
    """
    content = read_yaml(given_path(str(path)))
    apply_overrides(content, overrides)
    recipe = parse_recipe(content, where=str(path))
    refuse_idle(recipe, idle_keys(recipe), overrides)
    return recipe


def idle_keys(recipe: Recipe) -> dict[str, str]:
    """Keys and sections of a recipe that have no effect beside the others, with the reason."""
    phases = recipe.phases or [Phase(name="train")]
    return idle_sections(recipe, [resolve_phase(recipe, phase) for phase in phases])


def parse_recipe(content: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Checks a mapping and its phases. Raises RecipeError naming key path and nearest name."""
    refuse_secrets(content, where=where)
    recipe = _validate(Recipe, content, where)
    seen: set[str] = set()
    for index, phase in enumerate(recipe.phases):
        if phase.name in seen:
            raise RecipeError(f'two phases are called "{phase.name}"', where=f"{where}: phases")
        seen.add(phase.name)
        tune, _ = resolve_phase(recipe, phase, where=f"{where}: phases.{index}")
        _require_trained(recipe, tune, where=f"{where}: phases.{index}.tune")
    if not recipe.phases:
        _require_trained(recipe, recipe.tune, where=f"{where}: tune")
    return recipe


def _require_trained(recipe: Recipe, tune: Tune, *, where: str) -> None:
    """Raises RecipeError where nothing would be trained."""
    has_heads = bool(recipe.objectives.alignment)
    parts = ("vision", "qformer", "query_tokens", "language_projection", "decoder")
    if not has_heads and all(getattr(tune, part) == "frozen" for part in parts):
        raise RecipeError(
            f"{', '.join(parts)} are all frozen: nothing would be trained",
            where=where,
            do="set tune.decoder=lora or tune.qformer=full, for example",
        )


def resolve_phase(recipe: Recipe, phase: Phase, *, where: str = "recipe") -> tuple[Tune, Train]:
    """The `tune` and `train` sections that hold in a phase."""
    tune = merge(recipe.tune.model_dump(), phase.tune)
    train = merge(recipe.train.model_dump(), phase.train)
    return _validate(Tune, tune, f"{where}.tune"), _validate(Train, train, f"{where}.train")


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
        raise RecipeError(
            f"holds a {type(content).__name__}", where=str(path), expected="a mapping"
        )
    return content


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping; neither is altered."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Lays `key.path=value` overrides over `content`, in place. Raises RecipeError."""
    for override in overrides:
        _apply(content, override)


def _apply(content: dict[str, Any], override: str) -> None:
    key_path, equals, text = override.partition("=")
    key_path = key_path.strip()
    if not equals or not key_path:
        raise RecipeError(
            f'"{override}"', where="command line", expected="key.path=value, e.g. train.epochs=3"
        )
    where = f"command line: {key_path}"
    value = yaml_override_value(text, where=where)
    first, *rest = key_path.split(".")
    if first != "phases" or not rest:
        _lay_over(content, [first, *rest], value, where=where)
        return
    phases = content.get("phases")
    count = len(phases) if isinstance(phases, list) else 0
    if not isinstance(phases, list) or not rest[0].isdecimal() or int(rest[0]) >= count:
        raise RecipeError(
            f"the recipe has {count} phases",
            where=where,
            expected="phases.N.KEY=value with N from 0" if count else "a recipe with phases",
        )
    changed = list(phases)
    number = int(rest[0])
    if len(rest) == 1:
        changed[number] = value
    else:
        phase = changed[number]
        changed[number] = dict(phase) if isinstance(phase, Mapping) else {}
        _lay_over(changed[number], rest[1:], value, where=where)
    content["phases"] = changed


def _lay_over(content: dict[str, Any], path: Sequence[str], value: Any, *, where: str) -> None:
    """Sets a key of nested mappings in place; inner mappings are copied, missing ones made."""
    *parents, last = path
    node = content
    for depth, parent in enumerate(parents, start=1):
        child = node.get(parent)
        if parents[:depth] == ["train", "lr"]:
            child = one_rate_for_all(child)
        if child is not None and not isinstance(child, Mapping):
            section = ".".join(parents[:depth])
            raise RecipeError(
                f"{section} is {_shown(child)}, which has no keys",
                where=where,
                do=f"set {section} as a whole",
            )
        node[parent] = node = dict(child or {})
    node[last] = value


def _shown(value: Any) -> str:
    """A value as a message repeats it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _validate(model: type[BaseModel], content: Mapping[str, Any], where: str) -> Any:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_describe(model, item) for item in error.errors()]
        raise RecipeError("; ".join(lines), where=where) from None


def _describe(model: type[BaseModel], item: Mapping[str, Any]) -> str:
    path = [part for part in item["loc"] if part != "[key]"]
    dotted = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        known = sorted(_section(model, path[:-1]).model_fields)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "known keys: " + ", ".join(known)
        return f'unknown key "{dotted}" ({hint})'
    if item["type"] == "missing":
        return f'key "{dotted}" is missing'
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("model_type", "dict_type"):
        return f"{dotted}={_shown(item['input'])}: {_keys_of(model, path)}"
    if item["type"] == "list_type":
        given = _shown(item["input"])
        example = item["input"] if isinstance(item["input"], str | int | float) else "..."
        return f"{dotted}={given}: expected a list, e.g. {dotted}=[{example}]"
    if item["type"] == "value_error":
        return f"{dotted}: {message}" if dotted else message
    return f"{dotted}={_shown(item['input'])}: {message[0].lower()}{message[1:]}"


def _keys_of(model: type[BaseModel], path: Sequence[Any]) -> str:
    """What stands at `path` in place of a single value."""
    try:
        known = list(_section(model, path).model_fields)
    except (KeyError, StopIteration):  # a mapping of free keys
        return "expected a mapping, {key: value}"
    dotted = ".".join(str(part) for part in path)
    one = "one number, or " if model is Recipe and dotted == "train.lr" else ""
    return f"expected {one}its keys, e.g. {dotted}.{known[0]}=...; they are {', '.join(known)}"


def _section(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    """The section class that `path` leads to from `model`."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return model
