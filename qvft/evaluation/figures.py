"""The file endings of figures; nothing here imports matplotlib."""

from __future__ import annotations

from pathlib import Path

from qvft.errors import RecipeError

FORMATS = ("png", "svg", "pdf")


def figure_format(path: Path, *, option: str) -> str:
    """The format that a figure's file name asks for.

    Args:
        option: of the command line that named it.

    Raises:
        RecipeError: the path ends in no known format.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        expected = "a file ending in " + ", ".join(f".{name}" for name in FORMATS)
        raise RecipeError(f"{path}", where=f"command line: {option}", expected=expected)
    return form
