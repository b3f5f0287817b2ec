"""Scores of texts generated while training, by the report's names."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.evaluation.metric_table import known_scores
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score
from qvft.inference.sampled import Sampled


def text_scores(texts: Sequence[Sampled]) -> dict[str, float]:
    """The scores that a report of these texts would have with `eval.metrics: auto`, in their
    units: those of its page of which the highest is the best.
    """
    rows = [
        PredictionRow(
            id=text.row.id,
            image=text.row.sample.image.name,
            kind=text.row.kind,
            question=text.row.question,
            prediction=text.text,
            references=text.row.references,
            meta=text.row.meta,
        )
        for text in texts
    ]
    known = known_scores()
    return {
        name: value
        for name, value in score(rows).metrics.items()
        if known[name].page is not None and not known[name].lower_is_better
    }
