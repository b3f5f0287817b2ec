"""Escaping of names and texts in a model card's Markdown."""

from __future__ import annotations

import json
import re
from pathlib import Path

_ACTED_ON = re.compile(r"[\\`<>\[\]|&]")
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)


def plain(value: object) -> str:
    """A text escaped for Markdown."""
    return _ACTED_ON.sub(r"\\\g<0>", one_line(value)).replace("\\<", "&lt;")


def inline_code(value: object) -> str:
    """A text escaped for inline code."""
    return one_line(value).replace("`", "'")


def quoted(value: object) -> str:
    """A text as a Python string literal."""
    return json.dumps(str(value))


def named(path: str) -> str:
    """A hub id or relative path as it is, an absolute path of this machine by its last part."""
    return Path(path).name if path.startswith(("/", "~")) or Path(path).is_absolute() else path


def one_line(value: object) -> str:
    """A text without line breaks and control characters."""
    return _UNPRINTABLE.sub(" ", str(value))
