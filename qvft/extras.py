"""Optional dependencies: error message with the extra to install."""

from __future__ import annotations

from importlib.util import find_spec

from qvft.errors import MissingToolError


def require_package(name: str, *, wanted_by: str, install: str, otherwise: str = "") -> None:
    """Raises MissingToolError if a package is not installed; does not import it.

    `install` is the argument of `pip install`, `otherwise` what does without the package.
    """
    if find_spec(name) is None:
        raise MissingToolError(
            f"needs the package {name}, which is not installed",
            where=wanted_by,
            do=f"run pip install '{install}'" + (f", or {otherwise}" if otherwise else ""),
        )
