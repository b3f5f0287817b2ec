"""One prediction with what it is compared to: a row of `predictions.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class PredictionRow:
    """A text that a model gave for an image, and the references.

    Attributes:
        id: unique within the evaluation.
        image: names the image; items of one image share it.
        kind: what was asked for.
        question: the question; None for a caption.
        prediction: the model's text, possibly empty.
        references: human captions or answers, repetitions kept.
        meta: what breakdowns group by: answer_type, question_type, organ, modality, ...
    """

    id: str
    image: str
    kind: Literal["caption", "question"]
    question: str | None
    prediction: str
    references: tuple[str, ...]
    meta: Mapping[str, str] = field(default_factory=dict)


def row_to_json(row: PredictionRow, scores: Mapping[str, float | str]) -> dict[str, Any]:
    """The row as it stands in `predictions.jsonl`; `question` only where one was asked."""
    asked = {"question": row.question} if row.question is not None else {}
    return {
        "id": row.id,
        "image": row.image,
        "kind": row.kind,
        **asked,
        "prediction": row.prediction,
        "references": list(row.references),
        "scores": dict(scores),
        "meta": dict(row.meta),
    }
