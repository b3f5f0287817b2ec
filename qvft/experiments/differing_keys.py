"""Recipe keys in which runs differ, and short names of key paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_OF_THE_FOLDER = ("name", "run.dir", "train.resume")
"""Keys that say where a run lies and how it was started."""


def differing_keys(recipes: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """By key path, the value in each recipe (value by key path; None where it has no such key).

    A section with one value for all its keys, such as one learning rate, is a single key.
    """
    keys = dict.fromkeys(key for recipe in recipes for key in recipe if key not in _OF_THE_FOLDER)
    found: dict[str, list[Any]] = {}
    for key in keys:
        values = [recipe.get(key) for recipe in recipes]
        if all(value == values[0] for value in values):
            continue
        section = key.rpartition(".")[0]
        inner = [other for other in keys if other.startswith(f"{section}.")]
        is_one = len(inner) > 1 and all(
            recipe.get(other) == recipe.get(key) for recipe in recipes for other in inner
        )
        found[section if section and is_one else key] = values
    return found


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest end of each key path that no other one has."""
    short = {}
    for key in keys:
        parts, others = key.split("."), [f".{other}" for other in keys if other != key]
        ends = [".".join(parts[-size:]) for size in range(1, len(parts) + 1)]
        alone = (end for end in ends if not any(one.endswith(f".{end}") for one in others))
        short[key] = next(alone, key)
    return short
