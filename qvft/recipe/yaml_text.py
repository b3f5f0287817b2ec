"""Parses YAML 1.2 safely to plain values: bounded size, no aliases, no tags."""

from __future__ import annotations

import copy
import math
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from qvft.errors import RecipeError, first_line

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 100_000
"""Aliases are counted at each use: nine lines of aliases to aliases can expand to 10^9 values."""
MAX_DEPTH = 50


def yaml_file_value(text: str, *, where: str) -> Any:
    """The value of a YAML text.

    Raises:
        RecipeError: it is not YAML (with the line), or raises as `plain_value`.
    """
    if len(text) > MAX_CHARACTERS:
        raise RecipeError(
            f"{len(text):,} characters", where=where, expected=f"at most {MAX_CHARACTERS:,}"
        )
    try:
        value = _parsed(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}:{mark.line + 1}" if mark else where
        problem = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        raise RecipeError(f"not valid YAML: {problem}", where=line) from error
    except RecursionError as error:
        raise RecipeError("nested too deeply", where=where) from error
    except Exception as error:  # broken dates, tags and numbers can raise nearly anything
        raise RecipeError(f"not valid YAML: {first_line(error)}", where=where) from error
    return plain_value(value, where=where)


def yaml_override_value(text: str, *, where: str) -> Any:
    """The value of an override or option; what is not YAML is a text. Raises as `plain_value`.

    A command line has no comments: a text is not cut at ` #`, and a text without quotes keeps the
    blanks at its ends.
    """
    try:
        value = _parsed(text) if text else None
    except RecursionError as error:
        raise RecipeError("nested too deeply", where=where) from error
    except Exception:  # as above; `run.dir=2001-99-99` names a folder
        value = text
    else:
        if isinstance(value, str) and value == text.strip() or _has_comment(text):
            value = text
    return plain_value(value, where=where)


def _has_comment(text: str) -> bool:
    """Whether YAML takes the end of a text that it can parse for a comment."""
    if "#" not in text:
        return False
    tokens = YAML(typ="safe", pure=True).scan(text)
    spans = [(token.start_mark.index, token.end_mark.index) for token in tokens]
    return "#" in text[max((end for start, end in spans if start < end), default=0) :]


def _parsed(text: str) -> Any:
    """A value of its own at every call; a run's lock is read by several parts of a program."""
    return copy.deepcopy(_parsed_once(text))


@lru_cache(maxsize=64)
def _parsed_once(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def plain_value(value: Any, *, where: str) -> Any:
    """`value`, if it holds only what JSON has.

    Raises:
        RecipeError: a date, bytes, a set, NaN, a key that is no text, a text that no file can
            hold, too many values or too many levels; the message names the key path.
    """
    left = MAX_VALUES

    def look(one: Any, path: str, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            given = f"over {MAX_VALUES:,} values" if left < 0 else f"over {MAX_DEPTH} levels"
            raise RecipeError(f"has {given}", where=where, do="look at its aliases (*)")
        problem = _problem(one)
        if problem:
            raise RecipeError(f"{path or 'the value'} {problem}", where=where)
        if isinstance(one, dict):
            for key, inner in one.items():
                problem = _problem(key) if isinstance(key, str) else "is no text"
                if problem:
                    raise RecipeError(f"the key {str(key)[:80]!r} {problem}", where=where)
                look(inner, f"{path}.{key}" if path else key, depth + 1)
        elif isinstance(one, list):
            for place, inner in enumerate(one):
                look(inner, f"{path}.{place}", depth + 1)

    look(value, "", 0)
    return value


def _problem(value: Any) -> str | None:
    """What is wrong with a single value, None if nothing is."""
    if isinstance(value, str):
        if "\0" in value or value.encode(errors="replace").decode() != value:
            return "has a zero character or half of a surrogate pair"
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, which is no number"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "is a number of more than 64 bits"
    if value is None or type(value) in (bool, int, float, dict, list):
        return None
    return f"is a {type(value).__name__}; put it in quotes if it is a text"
