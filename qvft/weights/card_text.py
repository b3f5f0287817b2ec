"""Escapes names and prompts for model cards: text, code, YAML front matter."""

from __future__ import annotations

import json
import re

_ACTED_ON = re.compile(r"[\\`<>\[\]|&]")
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)
_SIMPLE = re.compile(r"[A-Za-z][\w./-]*")


def plain(value: object) -> str:
    """A text escaped for Markdown."""
    return _ACTED_ON.sub(r"\\\g<0>", _one_line(value)).replace("\\<", "&lt;")


def inline_code(value: object) -> str:
    """A text escaped for inline code."""
    return _one_line(value).replace("`", "'")


def quoted(value: object) -> str:
    """A text as a Python string literal."""
    return json.dumps(str(value))


def yaml_value(value: object) -> str:
    """A text as a YAML value, quoted if necessary."""
    return str(value) if _SIMPLE.fullmatch(str(value)) else json.dumps(str(value))


def _one_line(value: object) -> str:
    return _UNPRINTABLE.sub(" ", str(value))
