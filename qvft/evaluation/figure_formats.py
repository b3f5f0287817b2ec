"""File extensions of figures that matplotlib can write. Does not import matplotlib."""

from __future__ import annotations

from pathlib import Path

from qvft.errors import RecipeError
from qvft.extras import require_package

FORMATS = ("png", "svg", "pdf")


def figure_format(path: Path, *, option: str) -> str:
    """The format that a figure's file name asks for.

    Args:
        option: of the command line that named it.

    Raises:
        RecipeError: the path ends in no known format.
        MissingToolError: matplotlib is not installed.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        expected = "a file ending in " + ", ".join(f".{name}" for name in FORMATS)
        raise RecipeError(f"{path}", where=f"command line: {option}", expected=expected)
    require_package("matplotlib", wanted_by=f"command line: {option}", install="qvft[plots]")
    return form
