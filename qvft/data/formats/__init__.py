"""Dataset formats: `format_table.py` lists them; each other file reads one or helps to."""

from qvft.data.formats.format import Format
from qvft.data.formats.format_table import (
    FORMATS,
    find_format,
    open_stream,
    read_samples,
    register_format,
    require_unique,
)

__all__ = [
    "FORMATS",
    "Format",
    "find_format",
    "open_stream",
    "read_samples",
    "register_format",
    "require_unique",
]
