"""Texts generated while training in a report: how those of a few rows changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from qvft.evaluation.evaluation_facts import Part


class Completion(Part):
    """An evaluation row whose text was generated again and again while training."""

    phase: str = Field(description="name of the phase")
    id: str = Field(description="of the row")
    question: str | None = Field(None, description="null for a caption")
    references: list[str] = Field(description="what people wrote")
    texts: dict[int, str] = Field(
        {},
        description="greedy text by optimizer step, where it differs from the one before; 0 is "
        "before the first step",
    )


def completions_of(lines: Iterable[Mapping[str, Any]]) -> list[Completion]:
    """The rows of the lines of completions.jsonl, in order of steps."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        facts = {key: line[key] for key in Completion.model_fields if key in line}
        row = rows.setdefault((line["phase"], line["id"]), {**facts, "texts": {}})
        if line["text"] not in list(row["texts"].values())[-1:]:
            row["texts"][line["step"]] = line["text"]
    return [Completion(**row) for row in rows.values()]
