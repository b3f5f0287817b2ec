"""Dataset formats: `format_table.py` lists them; each other file reads one or helps to."""

from __future__ import annotations

import importlib
from typing import Any

_OF_TABLE = frozenset(
    ("FORMATS", "Format", "find_format", "open_stream", "read_samples", "register_format")
    + ("require_unique",)
)


def __getattr__(name: str) -> Any:
    """Imports the table when it is asked for: `fields` alone brings neither images nor numpy."""
    if name not in _OF_TABLE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("qvft.data.formats.format_table"), name)
