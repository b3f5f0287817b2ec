"""`python -m qvft.recipe.reference`: generates the recipe reference from the schema.

recipes/recipe.schema.json: for editors. docs/recipe_reference.md: for readers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from qvft.files import write_text
from qvft.recipe.renamed_keys import NEW_VALUES, RENAMED
from qvft.recipe.schema import Recipe
from qvft.recipe.section import Section, fields_by_key, section_of

SCHEMA_FILE, REFERENCE_FILE = "recipes/recipe.schema.json", "docs/recipe_reference.md"

_OPENING = """\
# Recipe reference

Every key a recipe may have, written by `python -m qvft.recipe.reference` from the schema. Any of
them can be overridden on the command line as `key.path=value` (in a phase:
`phases.0.train.epochs=3`); values are YAML. An unknown key, a value of another type, or one that
could only fail later is an error that names the key path. No key is ignored: an override that the
program does not read (unless it repeats what the run was trained with), or that another key
switches off, is refused, and such keys in a file are named in a warning.
`recipes/recipe.schema.json` gives editors the same.
"""
_RENAMED = """\
Keys have the names that transformers, peft, bitsandbytes, accelerate and torch use. A recipe or an
override with a name of version 0.1.0 is refused with the new one. Its runs resume, evaluate and
verify with their lock files as they are.
"""
BEYOND_USE = 1_000_000
"""A bound from here on only catches slips, and is not worth reading."""
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def schema_text() -> str:
    """The JSON schema of a recipe, as the file holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**schema, **Recipe.model_json_schema()}, indent=2) + "\n"


def reference_text() -> str:
    """The reference in Markdown: a table for each section class, in the recipe's order."""
    paths = {section: path for path, section in reversed(list(_sections()))}
    parts = [_OPENING]
    for path, section in _sections():
        if paths[section] != path:
            continue
        lines = [f"## `{path}`" if path else "## The recipe itself", ""]
        lines += ["| key | type | default | what it does |", "|---|---|---|---|"]
        described = section.model_json_schema()["properties"]
        for key, field in fields_by_key(section).items():
            inner = section_of(field.annotation)
            text = field.description or ""
            if inner:
                text = f"{text} See `{paths[inner]}`.".strip()
            default = (
                "required"
                if field.is_required()
                else _default(field.get_default(call_default_factory=True))
            )
            kind = _type(described[key], section=inner is not None)
            lines.append(f"| `{key}` | {kind} | {default} | {text} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join([*parts, _renamed_keys()])


def _renamed_keys() -> str:
    lines = ["## Renamed keys", "", _RENAMED, "| old | new | values |", "|---|---|---|"]
    for old, new in RENAMED.items():
        values = "; ".join(
            f"`{value}` is now "
            + ", ".join(f"`{key}: {json.dumps(to)}`" for key, to in keys.items())
            for value, keys in NEW_VALUES.get(old, {}).items()
        )
        lines.append(f"| `{old}` | `{new}` | {values or 'the same'} |")
    return "\n".join(lines) + "\n"


def write_reference(root: Path) -> list[Path]:
    """Writes both files below the repository's `root` and returns their paths."""
    files = [root / SCHEMA_FILE, root / REFERENCE_FILE]
    for file, text in zip(files, (schema_text(), reference_text()), strict=True):
        write_text(file, text)
    return files


def _sections(
    section: type[Section] = Recipe, path: str = ""
) -> Iterator[tuple[str, type[Section]]]:
    """Pairs (key path, section class), a section before those inside it."""
    yield path, section
    for key, field in fields_by_key(section).items():
        inner = section_of(field.annotation)
        if inner:
            yield from _sections(inner, f"{path}.{key}" if path else key)


def _type(described: dict[str, Any], *, section: bool) -> str:
    if options := described.get("anyOf", described.get("oneOf")):
        return " or ".join(_type(option, section=section) for option in options)
    if "const" in described:
        return f"`{described['const']}`"
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"])
    kind = str(described.get("type"))
    if kind == "array":
        item, blank, rest = _type(described["items"], section=section).partition(" ")
        return f"list of {item}s{blank}{rest}"
    if section and kind not in ("null", "number"):
        return "section"
    bounds = [
        f"{sign} {described[name]:g}"
        for name, sign in _BOUNDS.items()
        if name in described and abs(described[name]) < BEYOND_USE
    ]
    return {"object": "mapping"}.get(kind, kind) + (f" {', '.join(bounds)}" if bounds else "")


def _default(value: Any) -> str:
    """A default as JSON; of a section what differs from its own defaults."""
    if isinstance(value, BaseModel):
        differing = value.model_dump(exclude_defaults=True)
        return f"`{json.dumps(differing)}`" if differing else ""
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    write_reference(Path(__file__).parents[2])
