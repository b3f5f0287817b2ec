"""Import an object that a recipe names as `package.module.name` or `package.module:name`."""

from __future__ import annotations

import importlib
from typing import TypeVar

from qvft.errors import RecipeError

T = TypeVar("T")


def is_dotted(name: str) -> bool:
    """Whether a name means an object of an importable module, not a row of a table."""
    return "." in name.strip(".") or ":" in name.strip(":")


def import_dotted(name: str, wanted: type[T], *, where: str) -> T:
    """The object of this name, from the modules that can be imported here.

    Args:
        name: `package.module.name` or `package.module:name`.
        wanted: the class that the object must be an instance of.
        where: the recipe key that names it.

    Raises:
        RecipeError: no such module, an error while it is imported, no such attribute, or an object
            of another class.
    """
    module_name, _, attribute = name.rpartition(":" if ":" in name else ".")
    expected = f"a {wanted.__name__} as package.module.name"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything
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
        raise RecipeError(
            f'"{name}" is a {type(found).__name__}',
            where=where,
            expected=expected,
        )
    return found
