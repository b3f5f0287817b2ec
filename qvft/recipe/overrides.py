"""`key.path=value` overrides: read as YAML and applied to a recipe's content."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from qvft.errors import RecipeError
from qvft.recipe.section import LISTS
from qvft.recipe.source import Source
from qvft.recipe.train import one_rate_for_all
from qvft.recipe.yaml_text import yaml_override_value

_OF_ONE = {"path", "name", "weight"}
"""Keys of a source that cannot be the same for a list of them."""


def override_texts(values: Mapping[str, Any]) -> list[str]:
    """Overrides given in Python, `{"train.epochs": 3}`, as the command line has them.

    Raises RecipeError for a value that YAML does not have, such as a set.
    """
    texts = []
    for key, value in values.items():
        try:
            # JSON is YAML 1.2, and a path is a text.
            text = json.dumps(value, ensure_ascii=False, default=os.fspath)
        except TypeError as error:
            raise RecipeError(
                f"a {type(value).__name__}",
                where=key,
                expected="a number, a text, true or false, None, a list or a dict of these",
            ) from error
        texts.append(f"{key}={text}")
    return texts


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Applies `key.path=value` overrides to `content`, in place; raises RecipeError."""
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
    if not text.strip() and not key_path.endswith("prompt.caption"):
        raise RecipeError(
            "has no value, as where a variable of the shell is not set",
            where=where,
            do=f"set the variable, or write {key_path}=null",
        )
    value = yaml_override_value(text, where=where)
    path = key_path.split(".")
    for name in LISTS:
        depth = name.count(".") + 1
        if ".".join(path[:depth]) == name and len(path) > depth:
            _set_in_list(content, path[:depth], path[depth:], value, where=where)
            return
    _set_key(content, path, value, where=where)


def _set_in_list(
    content: dict[str, Any], path: Sequence[str], rest: Sequence[str], value: Any, *, where: str
) -> None:
    """Sets a key of one section of the list at `path`, which may also be no list; a key of sources
    without their number is set for all of them.
    """
    listed: Any = content
    for part in path:
        listed = listed.get(part) if isinstance(listed, Mapping) else None
    name = ".".join(path)
    if not isinstance(listed, list) and name != "phases":
        _set_key(content, [*path, *rest], value, where=where)
        return
    sections = listed if isinstance(listed, list) else []
    numbered = {str(number): one for number, one in enumerate(sections)}
    keys = [list(rest)]
    if numbered and name != "phases" and rest[0] in Source.model_fields.keys() - _OF_ONE:
        keys = [[number, *rest] for number in numbered]
    elif rest[0] not in numbered:
        owner, noun = ("the recipe", name) if name == "phases" else (name, "sources")
        raise RecipeError(
            f"{owner} has {len(numbered)} {noun}",
            where=where,
            expected=f"{name}.N.KEY=value with N from 0" if numbered else f"a recipe with {noun}",
            do=None if name == "phases" else f"or set {name} as a whole: {name}={{path: ...}}",
        )
    for key in keys:
        _set_key(numbered, key, value, where=where)
    _set_key(content, path, list(numbered.values()), where=where)


def _set_key(content: dict[str, Any], path: Sequence[str], value: Any, *, where: str) -> None:
    """Sets a key of nested mappings in place; inner mappings are copied, missing ones made."""
    *parents, last = path
    node = content
    for depth, parent in enumerate(parents, start=1):
        child = node.get(parent)
        if parents[max(depth - 2, 0) : depth] == ["train", "learning_rate"]:
            child = one_rate_for_all(child)
        if child is not None and not isinstance(child, Mapping):
            section = ".".join(parents[:depth])
            raise RecipeError(
                f"{section} is {shown(child)}, which has no keys",
                where=where,
                do=f"set {section} as a whole",
            )
        node[parent] = node = dict(child or {})
    node[last] = value


def shown(value: Any) -> str:
    """A value as an error message repeats it, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
