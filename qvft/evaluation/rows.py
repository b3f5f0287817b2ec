"""`predictions.jsonl`: one row per prediction, with its references and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from qvft.errors import DataError

if TYPE_CHECKING:
    from qvft.data.rows import Row


@dataclass(frozen=True)
class PredictionRow:
    """A prediction for an image, with its references.

    Attributes:
        id: unique within the evaluation.
        image: image name, shared by the items of one image.
        kind: `caption` or `question`.
        question: the question; None for a caption.
        prediction: the model's text, possibly empty.
        references: human captions or answers, repetitions kept.
        meta: metadata for breakdowns: answer_type, question_type, organ, modality, ...
    """

    id: str
    image: str
    kind: Literal["caption", "question"]
    question: str | None
    prediction: str
    references: tuple[str, ...]
    meta: Mapping[str, str] = field(default_factory=dict)


def prediction_rows(rows: Sequence[Row], texts: Sequence[str] | None = None) -> list[PredictionRow]:
    """Rows of data with their predictions, which are empty unless given."""
    return [
        PredictionRow(
            row.id,
            row.sample.image.name,
            row.kind,
            row.question,
            text,
            row.references,
            row.meta,
        )
        for row, text in zip(rows, texts or [""] * len(rows), strict=True)
    ]


def row_to_json(row: PredictionRow, scores: Mapping[str, float | str]) -> dict[str, Any]:
    """The row as a line of `predictions.jsonl`; `question` only for questions."""
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


def row_of_json(content: Mapping[str, Any], *, where: str) -> PredictionRow:
    """Parses a row of `row_to_json`, without scores.

    Raises:
        DataError: a key is missing or has the wrong type.
    """
    wanted = "a row of an evaluation"
    for key in ("id", "image", "prediction", "references"):
        if key not in content:
            raise DataError(f"`{key}` is missing", where=where, expected=wanted)
    question = content.get("question")
    kind = content.get("kind", "caption" if question is None else "question")
    if kind != ("caption" if question is None else "question"):
        raise DataError(f"`kind` is {kind}", where=where, expected="question with a question alone")
    if not isinstance(content["references"], list):  # a text would be read letter by letter
        raise DataError("`references` is no list", where=where, expected="a list of texts")
    try:
        row = PredictionRow(
            id=content["id"],
            image=content["image"],
            kind=kind,
            question=question,
            prediction=content["prediction"],
            references=tuple(content["references"]),
            meta=dict(content.get("meta", {})),
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"{error}", where=where, expected=wanted) from error
    texts = [row.id, row.image, row.kind, row.prediction, *row.references]
    texts += [] if row.question is None else [row.question]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("a value is no text", where=where, expected=wanted)
    return row
