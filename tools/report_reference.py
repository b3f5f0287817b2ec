"""`python -m tools.report_reference`: writes the tables of docs/report.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from qvft.evaluation.evaluation_facts import Part
from qvft.evaluation.report.report import Report

PAGE = Path(__file__).parents[1] / "docs" / "report.md"

ROW_KEYS = {
    "id": "unique within the evaluation",
    "image": "the image's file, or its name where it has none; items of one image share it",
    "kind": "`caption` or `question`: what was asked for",
    "question": "the question; only where one was asked",
    "prediction": "what the model wrote, possibly empty",
    "references": "all human captions or answers, repetitions kept",
    "scores": "by name, the item's score on a scale of 0 to 1 (CIDEr 0 to 10); for yes/no "
    "questions also `parsed` (`yes`, `no` or `unparseable`) and `parsed_anywhere` (`yes`, `no`, "
    "`both` or `neither`), for medical ones `answer_type`; log-probabilities and ranked "
    "candidates ([scores.md](scores.md))",
    "meta": "what the data says about the item: answer_type, organ, modality, ...",
}
"""Keys of a row of `predictions.jsonl`, and what they hold."""

MARKER = "<!-- The tables below are written by `python -m tools.report_reference`. -->\n"


def tables() -> str:
    """The tables in Markdown: one for each class of `report.json`, the report first."""
    lines = ["| key | what it holds |", "|---|---|"]
    lines += [f"| `{key}` | {text} |" for key, text in ROW_KEYS.items()]
    parts = ["\n".join(lines) + "\n"]
    described_at: dict[type[Part], str] = {}
    for path, part in _parts(Report, ""):
        if part in described_at:
            if "." not in path.removesuffix(".NAME"):  # not again for what is inside it
                parts.append(f"## `{path}`\n\nAs `{described_at[part]}`.\n")
            continue
        described_at[part] = path
        title = f"## `{path}`" if path else "## `report.json`"
        described = part.model_json_schema()
        rows = ["| key | type | what it holds |", "|---|---|---|"]
        rows += [
            f"| `{key}` | {_type(described['properties'][key])} | {field.description} |"
            for key, field in part.model_fields.items()
        ]
        parts.append("\n".join([title, "", (part.__doc__ or "").strip(), "", *rows]) + "\n")
    return "\n".join(parts)


def with_tables(page: str) -> str:
    """The page with its tables written anew below the marker."""
    return page.partition(MARKER)[0] + MARKER + "\n" + tables()


def _parts(part: type[Part], path: str) -> Iterator[tuple[str, type[Part]]]:
    """Pairs (key path, class), a class before those inside it."""
    yield path, part
    for key, field in part.model_fields.items():
        own = f"{path}.{key}" if path else key
        for inner, mark in _inner(field.annotation, ""):
            yield from _parts(inner, own + mark)


def _inner(annotation: Any, mark: str) -> Iterator[tuple[type[Part], str]]:
    """Classes in an annotation, with `[]` behind the key for lists and `.NAME` for mappings."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation, mark
    marks: dict[Any, str] = {list: "[]", dict: ".NAME"}
    inner = marks.get(get_origin(annotation), mark)
    for option in get_args(annotation):
        yield from _inner(option, inner)


def _type(described: dict[str, Any]) -> str:
    if "anyOf" in described:
        return " or ".join(_type(option) for option in described["anyOf"])
    if "$ref" in described:
        return "object"
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"])
    kind = described.get("type", "any")
    if kind == "array":
        if "prefixItems" in described:
            return f"{len(described['prefixItems'])} numbers"
        return f"list of {_type(described['items'])}s"
    if kind == "object":
        inner = described.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    return str(kind)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
