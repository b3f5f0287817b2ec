"""Imports an object that a recipe names as `package.module.name` or `package.module:name`."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TypeVar

from qvft.errors import RecipeError

T = TypeVar("T")
_LOCK = "recipe.lock.yaml"  # every run folder has one


def is_dotted(name: str) -> bool:
    """Whether a name is a dotted name of an importable object, not a name in a table."""
    return "." in name.strip(".") or ":" in name.strip(":")


def import_dotted(name: str, wanted: type[T], *, where: str) -> T:
    """Imports the object named as `package.module.name` or `package.module:name`, of class
    `wanted`.

    Raises RecipeError, with the recipe key `where`, for a module that is missing, fails or lies in
    a run folder, a missing attribute, or an object of another class.
    """
    module_name, _, attribute = name.rpartition(":" if ":" in name else ".")
    expected = f"a {wanted.__name__} as package.module.name"
    _require_outside_of_runs(module_name.partition(".")[0], name=name, where=where)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise RecipeError(
            f'"{name}": importing "{module_name}" failed with {type(error).__name__}: {error}',
            where=where,
            expected=expected,
            do="install the package, or add its folder to PYTHONPATH",
        ) from error
    if not hasattr(module, attribute):
        raise RecipeError(
            f'"{name}": module "{module_name}" ({module.__file__}) has no "{attribute}"',
            where=where,
            expected=expected,
        )
    found = getattr(module, attribute)
    if not isinstance(found, wanted):
        raise RecipeError(f'"{name}" is a {type(found).__name__}', where=where, expected=expected)
    return found


def _require_outside_of_runs(package: str, *, name: str, where: str) -> None:
    """Refuses a module in a run folder, which may be a downloaded one: its lock would run it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    for folder in (parent for place in places for parent in Path(place).absolute().parents):
        if (folder / _LOCK).is_file():
            raise RecipeError(
                f'"{name}" would import code from {folder}, a run folder',
                where=where,
                expected="a package of your own environment",
                do="move the package out of the run folder, if you trust it",
            )
