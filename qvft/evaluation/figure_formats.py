"""File extensions of figures that matplotlib can write. Does not import matplotlib."""

from __future__ import annotations

from pathlib import Path

from qvft.errors import RecipeError
from qvft.extras import require_package

FORMATS = ("png", "svg", "pdf")


def figure_format(path: Path, *, option: str) -> str:
    """Format of a figure by its file extension.

    Args:
        option: its command line option, for messages.

    Raises:
        RecipeError: unknown extension.
        MissingToolError: matplotlib is not installed.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        expected = "a file ending in " + ", ".join(f".{name}" for name in FORMATS)
        raise RecipeError(f"{path}", where=f"command line: {option}", expected=expected)
    require_package("matplotlib", wanted_by=f"command line: {option}", install="qvft[plots]")
    return form
