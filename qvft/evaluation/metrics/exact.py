"""Exact match after normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.evaluation.answers import NORMALISATION, normalise_answer

DEFINITION = (
    "exact_match/v2: share of items whose prediction equals one of the references, "
    f"both {NORMALISATION}."
)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction equals any reference after `normalise_answer`, else 0."""
    given = normalise_answer(prediction)
    return float(any(given == normalise_answer(reference) for reference in references))
