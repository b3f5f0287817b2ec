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
        description="greedy text by optimizer step, where it differs from the one before; 0 is "
        "before the first step"
    )
    last_step: int = Field(description="step of the last generation")


def completions_of(lines: Iterable[Mapping[str, Any]]) -> list[Completion]:
    """The rows of the lines of completions.jsonl."""
    found: dict[tuple[str, str], Completion] = {}
    for line in lines:
        known = found.setdefault(
            (line["phase"], line["id"]),
            Completion(
                phase=line["phase"],
                id=line["id"],
                question=line.get("question"),
                references=line["references"],
                texts={line["step"]: line["text"]},
                last_step=line["step"],
            ),
        )
        texts = known.texts
        if line["text"] != texts[max(texts)]:
            texts = {**texts, line["step"]: line["text"]}
        changed = {"texts": texts, "last_step": line["step"]}
        found[line["phase"], line["id"]] = known.model_copy(update=changed)
    return [*found.values()]
